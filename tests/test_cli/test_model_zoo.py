"""Weights of MMSegmentation's model zoo: files that MMEngine wrote, and downloads that cannot be had."""
import pickle
import re
from email.message import Message
from pathlib import Path
from urllib.error import HTTPError, URLError

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from fedseg_mm import FedSegError
from fedseg_mm.cli.train import main
from tests.conftest import assert_same_bits, run_tool, tiny_config, write_config
from tests.test_checkpoints import RunsCode, touch
from tests.test_engine.test_federated_loop import train

#: As MMSegmentation's model zoo names its files.
URL = 'https://download.openmmlab.com/mmsegmentation/v0.5/pspnet/pspnet_r50-d8_20200604-00000000.pth'


class FirstBroadcast(Hook):
    """Keeps what goes down to the clients of the first round."""

    def before_round(self, runner, cohort, broadcast):
        if runner.epoch == 0:
            self.weights = {name: tensor.clone() for name, tensor in broadcast.weights.items()}


def start_of_training(tiny_data, work_dir: Path, **changes) -> dict[str, torch.Tensor]:
    """The weights that a federated training of one round starts from."""
    first = FirstBroadcast()
    train(tiny_config(tiny_data, work_dir, **{'train_cfg.max_rounds': 1, **changes}), first)
    return first.weights


def sentence_in_log(work_dir: Path) -> str:
    """The line of the run's log that tells what was not loaded; empty if all was."""
    (log, ) = work_dir.glob('*/*.log')
    lines = [line.split(' - WARNING - ')[1] for line in log.read_text().splitlines() if 'are loaded from the' in line]
    assert len(lines) <= 1 and 'do not match exactly' not in log.read_text()
    return lines[0] if lines else ''


@pytest.fixture(scope='module')
def zoo(tiny_data, tmp_path_factory) -> Path:
    """A checkpoint of MMEngine's own Runner, without anything of ours in the config."""
    folder = tmp_path_factory.mktemp('zoo')
    cfg = tiny_config(tiny_data, folder)
    for key in ('federated', 'custom_imports', 'log_processor'):
        cfg.pop(key)
    cfg.model.decode_head.loss_decode = dict(type='CrossEntropyLoss')
    cfg.train_dataloader.sampler = dict(type='InfiniteSampler', shuffle=True)
    cfg.default_hooks = dict(
        logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=False),
        checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=4, save_best='mIoU'))
    cfg.param_scheduler = [dict(type='PolyLR', begin=0, end=4, by_epoch=False)]
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=4, val_interval=4)
    cfg.experiment_name = 'zoo'
    Runner.from_cfg(cfg).train()
    return folder / 'iter_4.pth'


def weights_in(path: Path) -> dict[str, torch.Tensor]:
    """The weights in a file that may hold what only MMEngine reads, read by plain torch."""
    return dict(torch.load(path, weights_only=False)['state_dict'])


def changed(zoo: Path, path: Path, change) -> Path:
    """The zoo's file with other weights, and all else as it is."""
    checkpoint = torch.load(zoo, weights_only=False)
    checkpoint['state_dict'] = change(checkpoint['state_dict'])
    torch.save(checkpoint, path)
    return path


def for_19_classes(weights: dict) -> dict:
    """As a head of Cityscapes' 19 classes has them."""
    return {name: torch.ones(19, *tensor.shape[1:]) if '.conv_seg.' in name else tensor
            for name, tensor in weights.items()}


@pytest.fixture(scope='module')
def parallel_zoo(zoo) -> Path:
    """As a distributed training without MMEngine writes it."""
    return changed(zoo, zoo.with_name('parallel.pth'), lambda weights: {f'module.{k}': v for k, v in weights.items()})


def test_the_zoo_is_one_that_plain_torch_refuses(zoo):
    with pytest.raises(pickle.UnpicklingError, match='HistoryBuffer'):
        torch.load(zoo, weights_only=True)
    checkpoint = torch.load(zoo, weights_only=False)
    assert type(checkpoint['message_hub']['log_scalars']['train/loss']).__name__ == 'HistoryBuffer'
    assert type(checkpoint['message_hub']['runtime_info']['best_score']).__module__ == 'numpy'
    assert checkpoint['optimizer']['state'] and 'federated' not in checkpoint


@pytest.mark.parametrize('name', ['iter_4', 'parallel'])
def test_training_starts_from_the_zoos_weights_bit_for_bit(zoo, parallel_zoo, tiny_data, tmp_path, name):
    start = start_of_training(tiny_data, tmp_path, load_from=str(zoo.with_name(f'{name}.pth')))
    assert_same_bits(start, weights_in(zoo))
    assert sentence_in_log(tmp_path) == ''


def test_the_tools_fine_tune_and_evaluate_it(parallel_zoo, zoo, tiny_data, tmp_path):
    """At a learning rate of 0 the parameters stay the zoo's; the tools are run as a user runs them."""
    config = write_config(tiny_data, tmp_path)
    done = run_tool('fed_train', config, '--cfg-options', f'load_from={parallel_zoo}', 'train_cfg.max_rounds=1',
                    'optim_wrapper.optimizer.lr=0', 'param_scheduler=None')
    assert done.returncode == 0, done.stdout + done.stderr
    assert f'Load checkpoint from {parallel_zoo}' in done.stdout and 'mIoU' in done.stdout
    tuned, before = torch.load(tmp_path / 'round_1.pth', weights_only=True)['state_dict'], weights_in(zoo)
    assert tuned.keys() == before.keys()
    statistics = [name for name in before if not torch.equal(tuned[name], before[name])]
    assert statistics and all(re.search(r'\.(running_mean|running_var|num_batches_tracked)$', name)
                              for name in statistics)
    for checkpoint in (tmp_path / 'round_1.pth', parallel_zoo):
        done = run_tool('test', config, checkpoint, '--work-dir', tmp_path / 'test')
        assert done.returncode == 0, done.stdout + done.stderr
        assert 'mIoU' in done.stdout and 'are loaded from the' not in done.stdout


def test_a_head_of_other_classes_is_skipped_and_named(zoo, tiny_data, tmp_path):
    path = changed(zoo, tmp_path / 'cityscapes.pth', for_19_classes)
    start = start_of_training(tiny_data, tmp_path / 'run', load_from=str(path))
    skipped = {'decode_head.conv_seg.weight', 'decode_head.conv_seg.bias'}
    initial = start_of_training(tiny_data, tmp_path / 'initial')
    assert_same_bits(start, {name: (initial if name in skipped else weights_in(zoo))[name] for name in start})
    assert sentence_in_log(tmp_path / 'run') == (
        'Weights that fit are loaded from the checkpoint, and the rest is skipped: '
        'decode_head.conv_seg.weight is [19, 8, 1, 1] in the checkpoint and [4, 8, 1, 1] in the model; '
        'decode_head.conv_seg.bias is [19] in the checkpoint and [4] in the model.')


def test_missing_and_unknown_weights_are_named(zoo, tiny_data, tmp_path):
    """A method adds a projection head, and the zoo's model has an auxiliary head."""
    path = changed(zoo, tmp_path / 'other.pth', lambda weights: {
        'auxiliary_head.conv_seg.bias': torch.ones(4), **for_19_classes(weights)})
    start = start_of_training(tiny_data, tmp_path / 'run', load_from=str(path),
                              **{'federated.algorithm': dict(type='FedSeg')})
    sentence = sentence_in_log(tmp_path / 'run')
    assert sentence.index('decode_head.conv_seg.weight is [19, 8, 1, 1]') < sentence.index('the model lacks')
    assert 'the model lacks auxiliary_head.conv_seg.bias; the checkpoint lacks projection_head.layers.0.weight, ' in \
        sentence
    backbone = {name: tensor for name, tensor in start.items() if name.startswith('backbone.')}
    assert_same_bits(backbone, {name: weights_in(zoo)[name] for name in backbone})


@pytest.mark.parametrize('prefix', [None, 'backbone.'])
def test_a_pretrained_backbone(zoo, tiny_data, tmp_path, prefix):
    """From a file of the backbone alone, and from the whole segmentor's."""
    initial = dict(type='Pretrained', checkpoint=str(zoo), prefix=prefix)
    if prefix is None:
        initial['checkpoint'] = str(changed(zoo, tmp_path / 'backbone.pth', lambda weights: {
            name.removeprefix('backbone.'): tensor for name, tensor in weights.items() if 'backbone' in name}))
    start = start_of_training(tiny_data, tmp_path / 'run', **{'model.backbone.init_cfg': initial})
    expected = weights_in(zoo)
    for name, tensor in start.items():
        if name.startswith('backbone.'):
            assert torch.equal(tensor, expected[name]), name
    assert any(not torch.equal(tensor, expected[name]) for name, tensor in start.items())
    assert sentence_in_log(tmp_path / 'run') == ''


@pytest.mark.parametrize('key', ['load_from', 'model.backbone.init_cfg'])
def test_a_file_that_carries_code_is_refused(zoo, tiny_data, tmp_path, key):
    path, mark = tmp_path / 'attack.pth', tmp_path / 'it_ran'
    checkpoint = torch.load(zoo, weights_only=False)
    torch.save({**checkpoint, 'extra': RunsCode(touch, str(mark))}, path)
    value = str(path) if key == 'load_from' else dict(type='Pretrained', checkpoint=str(path))
    with pytest.raises(FedSegError, match='attack.pth is refused: it asks for `tests.test_checkpoints.touch`'):
        train(tiny_config(tiny_data, tmp_path / 'run', **{key: value}))
    assert not mark.exists()


@pytest.mark.parametrize('key, value, url', [
    ('load_from', URL, URL),
    ('model.backbone.init_cfg', dict(type='Pretrained', checkpoint=URL), URL),
    ('model.backbone.init_cfg', dict(type='Pretrained', checkpoint=URL, prefix='backbone.'), URL),
    # what MMSegmentation's own configs say
    ('model.backbone.init_cfg', dict(type='Pretrained', checkpoint='open-mmlab://resnet50_v1c'),
     'https://download.openmmlab.com/pretrain/third_party/resnet50_v1c-2cccc1ad.pth'),
])
@pytest.mark.parametrize('error', [
    URLError(OSError(-2, 'Name or service not known')), HTTPError(URL, 404, 'Not Found', Message(), None)])
def test_a_url_off_line_is_one_sentence(tiny_data, tmp_path, monkeypatch, capsys, key, value, url, error):
    def no_network(*args, **kwargs):
        raise error

    monkeypatch.setattr(torch.hub, 'urlopen', no_network)
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    config = write_config(tiny_data, tmp_path, experiment_name=tmp_path.name, **{key: value})
    with pytest.raises(SystemExit) as stop:
        main([config])
    sentence = stop.value.code
    assert isinstance(sentence, str) and '\n' not in sentence  # which the interpreter prints, and exits with 1
    assert sentence.startswith(f'fed_train: {url} cannot be downloaded (') and str(error.reason) in sentence
    assert sentence.endswith(f': put the file into {tmp_path}/hub/checkpoints, or do without pretrained weights: '
                             f'--cfg-options {key}=None')
    assert 'Round 1' not in capsys.readouterr().out and not list((tmp_path / 'hub').rglob('*.pth'))


def test_the_tool_off_line(tiny_data, tmp_path):
    """For real: nothing listens there."""
    config = write_config(tiny_data, tmp_path)
    done = run_tool('fed_train', config, '--cfg-options', 'load_from=http://127.0.0.1:9/zoo.pth', no_proxy='*',
                    TORCH_HOME=str(tmp_path / 'hub'))
    assert done.returncode == 1 and 'Traceback' not in done.stdout + done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith(
        'fed_train: http://127.0.0.1:9/zoo.pth cannot be downloaded ([Errno 111] Connection refused): put the file')
    assert f'{tmp_path}/hub/hub/checkpoints' in done.stderr


def test_a_download_may_be_brought_by_hand(zoo, tiny_data, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    (tmp_path / 'checkpoints').mkdir()
    (tmp_path / 'checkpoints' / URL.split('/')[-1]).write_bytes(zoo.read_bytes())
    assert_same_bits(start_of_training(tiny_data, tmp_path / 'run', load_from=URL), weights_in(zoo))
