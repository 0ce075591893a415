"""tools/fed_gradients.py: loss terms against what all labels would ask."""
import json
import re

import pytest
import torch
from mmseg.registry import MODELS

from fedseg_mm.cli import arguments
from fedseg_mm.cli import train as fed_train
from fedseg_mm.cli.gradients import main, make_trainer
from fedseg_mm.engine.gradient_comparison import ALL_LABELS, GradientComparison
from tests.conftest import run_tool, tiny_config, write_config

#: As in training, but without dropout: the same loss has the same gradient twice.
STEADY = {'model.decode_head.dropout_ratio': 0.0}
ALL_CLASSES = dict(type='IIDPartitioner', num_clients=4)


@pytest.fixture(scope='module')
def trained(tiny_data, tmp_path_factory):
    """Makes a config and the checkpoint of a training of two rounds."""

    def train(**changes) -> tuple[str, str]:
        folder = tmp_path_factory.mktemp('trained')
        config = write_config(tiny_data, folder, **STEADY, **{'train_cfg.max_rounds': 2, **changes})
        fed_train.main([config, '--work-dir', str(folder)])
        return config, str(folder / 'round_2.pth')

    return train


@pytest.fixture(scope='module')
def trained_once(tiny_data, tmp_path_factory) -> str:
    """Weights that were never trained: enough for mistakes."""
    path = tmp_path_factory.mktemp('weights') / 'weights.pth'
    torch.save(dict(state_dict=MODELS.build(tiny_config(tiny_data, path.parent, **STEADY).model).state_dict()), path)
    return str(path)


def compared(config: str, checkpoint: str, work_dir, client: int = 0, batches: int = 9):
    trainer, names, rounds = make_trainer(arguments.gradients([config, checkpoint]), str(work_dir))
    comparison = GradientComparison(trainer, len(names))
    return comparison.of_client(client, trainer.algorithm.broadcast(rounds), batches)


def test_with_all_labels_back_ce_is_what_all_labels_ask(trained_once, tiny_data, tmp_path):
    config = write_config(tiny_data, tmp_path, **STEADY, **{'federated.partitioner': ALL_CLASSES})
    found = compared(config, trained_once, tmp_path)
    assert found.losses['decode.loss_back_ce'] == pytest.approx(found.losses[ALL_LABELS], rel=1e-6) != 0
    assert found.norms['decode.loss_back_ce'] == pytest.approx(found.norms[ALL_LABELS], rel=1e-6) != 0
    assert found.cosines['decode.loss_back_ce'] == pytest.approx(1)


def test_fewer_labels_ask_for_something_else_and_the_weights_stay(trained, tiny_data, tmp_path):
    config, checkpoint = trained(**{
        'federated.algorithm': dict(type='FedSeg', loss_weight=2.0, threshold=0.0, embedding_channels=8)})
    trainer, names, rounds = make_trainer(arguments.gradients([config, checkpoint]), str(tmp_path))
    assert rounds == 2
    comparison = GradientComparison(trainer, len(names))
    broadcast = trainer.algorithm.broadcast(rounds)
    before = {name: weight.clone() for name, weight in broadcast.weights.items()}
    clients = [comparison.of_client(client, broadcast, 2) for client in range(2)]
    assert all(torch.equal(before[name], weight) for name, weight in broadcast.weights.items())
    for found in clients:
        assert set(found.losses) == {'decode.loss_back_ce', 'loss_contrast', 'loss_contrast_pseudo', ALL_LABELS}
        assert found.cosines['decode.loss_back_ce'] < 0.99 and found.cosines[ALL_LABELS] == pytest.approx(1)
        assert 0 < found.right < found.pseudo_labelled == found.unannotated
        assert trainer.stream.batch_sampler.shards[found.client].classes == found.classes
    total = comparison.sums['loss_contrast']
    assert 0 < total.norm().item() <= sum(found.norms['loss_contrast'] for found in clients) + 1e-6

    half = write_config(tiny_data, tmp_path / 'half', **STEADY, **{
        'federated.algorithm': dict(type='FedSeg', loss_weight=1.0, threshold=0.0, embedding_channels=8)})
    halved = compared(half, checkpoint, tmp_path, batches=2)
    assert halved.norms['loss_contrast'] == pytest.approx(clients[0].norms['loss_contrast'] / 2, rel=1e-4)
    assert halved.norms['decode.loss_back_ce'] == pytest.approx(clients[0].norms['decode.loss_back_ce'], rel=1e-4)


def test_the_table_of_a_method_that_keeps_states(trained):
    """MOON's term is there for clients that have trained before."""
    config, checkpoint = trained(**{'federated.algorithm': dict(type='MOON')})
    done = run_tool('fed_gradients', config, checkpoint, '--clients', '--batches', 1)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if re.match(r'\| +\d', line)]
    assert len(rows) == 8 and any('–' in row for row in rows) and not all('–' in row for row in rows)
    assert re.search(r'\| loss_moon +\| +\d\.\d{3} \| +\d+\.\d{4} \| +-?\d\.\d\d \|', done.stdout)
    assert re.search(r'\| all labels .* 1\.00 \|\n', done.stdout) and 'in round 3' in done.stdout


@pytest.mark.parametrize('changes, sentence', [
    ({'federated': None}, 'has no `federated = dict(...)`'),
    ({'model.decode_head.channels': 16}, 'is not of this model'),
    ({'federated.algorithm': dict(type='FedSeg', embedding_channels=8)}, 'is not of this model'),
])
def test_mistakes_are_one_sentence(trained_once, tiny_data, tmp_path, changes, sentence):
    with pytest.raises(SystemExit) as stop:
        main([write_config(tiny_data, tmp_path, **STEADY, **changes), trained_once])
    assert sentence in stop.value.code and '\n' not in stop.value.code


def test_labels_of_real_silos_hide_nothing_to_compare_with(trained_once, tiny_data, tmp_path):
    images = [f'{i:03d}.png' for i in range(24)]
    manifest = dict(format='fedseg_mm partition 2', clients=[
        dict(client=k, images=[f'img_dir/train/{name}' for name in images[k::2]], classes=['sky'], unannotated=3)
        for k in range(2)])
    (tmp_path / 'silos.json').write_text(json.dumps(manifest))
    config = write_config(tiny_data, tmp_path, **STEADY, **{
        'federated.partitioner': str(tmp_path / 'silos.json'), 'federated.clients_per_round': 1})
    with pytest.raises(SystemExit) as stop:
        main([config, trained_once])
    assert 'name only its own classes' in stop.value.code, stop.value.code
