"""A training across sites gives the weights, bit for bit, of the same training in one place."""
import pytest

from tests.conftest import assert_same_bits, weights_of
from tests.test_silos.sites import across_sites, annotated, evaluations, make_kits, one_place, train

METHODS = {
    'FedAvg': {},
    'FedSeg': {'federated.algorithm': dict(type='FedSeg', embedding_channels=16, threshold=0.3)},
    'SCAFFOLD': {'federated.algorithm': dict(type='SCAFFOLD')},
    'MOON': {'federated.algorithm': dict(type='MOON')},
    'FedBN': {'federated.algorithm': dict(type='FedBN')},
    'a median': {'federated.aggregator': dict(type='CoordinateMedian')},
    'compression': {'federated.processors': [dict(type='TopKCompression', ratio=0.1)]},
    'channels_last': {'custom_hooks': [dict(type='ChannelsLastHook')]},
}


@pytest.mark.parametrize('name', METHODS)
def test_the_same_bits_in_one_place_and_across_sites(name, data, tmp_path, monkeypatch):
    train(one_place(data, tmp_path / 'here', **METHODS[name]))
    kits = make_kits(tmp_path / 'kits', data, annotated(tmp_path / 'here'))
    train(across_sites(data, kits, tmp_path / 'there', monkeypatch, **METHODS[name]))
    here, there = weights_of(tmp_path / 'here' / 'round_3.pth'), weights_of(tmp_path / 'there' / 'round_3.pth')
    if name == 'FedBN':  # what is not shared stays at the sites
        here, there = ({key: value for key, value in one.items() if '.bn' not in key} for one in (here, there))
    assert_same_bits(here, there)
    if name != 'FedBN':  # whose sites evaluate with what they keep
        assert evaluations(tmp_path / 'here') == evaluations(tmp_path / 'there')
