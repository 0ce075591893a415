"""A training across sites gives the weights, bit for bit, of the same training in one place."""
import json

import pytest
from mmengine.config import Config

from fedseg_mm.config import federate
from fedseg_mm.engine.backends import NVFlareBackend
from fedseg_mm.engine.tool_runner import ToolRunner
from tests.conftest import assert_same_bits, forget_runs, tiny_config, weights_of
from tests.test_silos.sites import DirectJob, make_kits, make_sites

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


@pytest.fixture(scope='module')
def sites(tmp_path_factory):
    folder = tmp_path_factory.mktemp('sites')
    make_sites(folder)
    return folder


def one_place(sites, work_dir, **changes) -> Config:
    return tiny_config(sites, work_dir, **{
        'federated.partitioner': dict(type='GroupPartitioner', pattern=r'(north|south)/', classes_per_client=2,
                                      _delete_=True),
        'federated.clients_per_round': 2, 'train_cfg.val_interval': 1, **changes})


def train(cfg: Config) -> ToolRunner:
    federate(cfg)
    forget_runs()
    runner = ToolRunner.from_cfg(cfg)
    runner.train()
    return runner


def evaluations(work_dir) -> list[dict]:
    """All figures of all evaluations, that of every class included."""
    lines = [json.loads(line) for file in work_dir.glob('*/vis_data/scalars.json')
             for line in file.read_text().splitlines()]
    # IoUMetric's own sums are float32's
    found = [{key: round(value, 2) for key, value in line.items() if key in ('step', 'mIoU', 'aAcc', 'mAcc', 'mIoU_annotated')
              or key.startswith('IoU/')} for line in lines if 'mIoU' in line or any(
                  key.startswith('IoU/') for key in line)]
    assert len(found) >= 3 and any(key.startswith('IoU/') for line in found for key in line)
    return found


def annotated(work_dir) -> dict[str, dict]:
    """What each client annotates, by the manifest of a training."""
    clients = json.loads((work_dir / 'partition.json').read_text())['clients']
    return {client['client']: dict(annotates=client['classes']) for client in clients}


def across_sites(sites, kits, work_dir, monkeypatch, job=None, **changes) -> Config:
    job = job or DirectJob(kits)
    monkeypatch.setattr(NVFlareBackend, 'new_job', lambda self, say: job)
    return one_place(sites, work_dir, **{
        'federated.partitioner': dict(type='SitesPartitioner', _delete_=True),
        'federated.backend': dict(type='NVFlareBackend', kits=str(kits)), **changes})


@pytest.mark.parametrize('name', METHODS)
def test_the_same_bits_in_one_place_and_across_sites(name, sites, tmp_path, monkeypatch):
    train(one_place(sites, tmp_path / 'here', **METHODS[name]))
    kits = make_kits(tmp_path / 'kits', sites, annotated(tmp_path / 'here'))
    train(across_sites(sites, kits, tmp_path / 'there', monkeypatch, **METHODS[name]))
    here, there = weights_of(tmp_path / 'here' / 'round_3.pth'), weights_of(tmp_path / 'there' / 'round_3.pth')
    if name == 'FedBN':  # what is not shared stays at the sites
        here, there = ({key: value for key, value in one.items() if '.bn' not in key} for one in (here, there))
    assert_same_bits(here, there)
    if name != 'FedBN':  # whose sites evaluate with what they keep
        assert evaluations(tmp_path / 'here') == evaluations(tmp_path / 'there')
