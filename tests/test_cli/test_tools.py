"""The tools as a user runs them: train, get killed, go on, evaluate."""
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import mmseg
import numpy as np
import pytest

from tests.conftest import ROOT, assert_same_bits, run_tool, weights_of, write_config

#: MMSegmentation's own tools, as its wheel ships them.
PACKAGED_TOOLS = Path(mmseg.__file__).parent / '.mim' / 'tools'


def train(*arguments) -> subprocess.CompletedProcess:
    done = run_tool('fed_train', *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def figures(work_dir: Path) -> dict:
    """The metrics that a test run wrote."""
    path = max(work_dir.glob('*/*.json'))
    return {key: value for key, value in json.loads(path.read_text()).items() if key in ('mIoU', 'aAcc', 'mAcc')}


def test_killed_and_resumed_equals_uninterrupted(tiny_data, tmp_path):
    """SIGKILL in the middle of a round, with loader workers."""
    changes = {'train_cfg.max_rounds': 4, 'train_dataloader.num_workers': 2}
    config = write_config(tiny_data, tmp_path / 'whole', **changes)
    train(config)
    parts = tmp_path / 'parts'
    with (tmp_path / 'killed.log').open('w') as log:
        run = subprocess.Popen([sys.executable, str(ROOT / 'tools' / 'fed_train.py'), config, '--work-dir', str(parts)],
                               stdout=log, stderr=log, start_new_session=True)
        deadline = time.time() + 120
        while not (parts / 'round_2.pth').exists() and run.poll() is None and time.time() < deadline:
            time.sleep(0.005)
        os.killpg(run.pid, signal.SIGKILL)
        assert run.wait() == -signal.SIGKILL
    assert not (parts / 'round_4.pth').exists()
    train(config, '--work-dir', parts, '--resume')
    assert_same_bits(weights_of(tmp_path / 'whole' / 'round_4.pth'), weights_of(parts / 'round_4.pth'))


def test_own_test_tool_and_that_of_mmsegmentation_agree(tiny_data, tmp_path):
    config = write_config(tiny_data, tmp_path, **{'federated.local_epochs': 8, 'train_cfg.max_rounds': 3})
    train(config)
    checkpoint = tmp_path / 'round_3.pth'
    done = run_tool('test', config, checkpoint, '--work-dir', tmp_path / 'own', '--out', tmp_path / 'maps')
    assert done.returncode == 0, done.stderr
    done = subprocess.run([sys.executable, str(PACKAGED_TOOLS / 'test.py'), config, str(checkpoint), '--work-dir',
                           str(tmp_path / 'packaged')], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    own = figures(tmp_path / 'own')
    assert own == figures(tmp_path / 'packaged') and own['mIoU'] > 0
    assert own['mIoU'] == json.loads((max(tmp_path.glob('2*/vis_data')) / 'scalars.json').read_text()
                                     .strip().splitlines()[-1])['mIoU']  # as at the end of training
    predicted = cv2.imread(str(tmp_path / 'maps' / '000.png'), cv2.IMREAD_UNCHANGED)
    assert predicted.shape == (48, 64) and predicted.max() < 4


def test_painted_predictions(tiny_data, tmp_path):
    config = write_config(tiny_data, tmp_path / 'config', **{
        'train_cfg.max_rounds': 1, 'default_hooks.visualization': dict(type='SegVisualizationHook')})
    train(config, '--work-dir', tmp_path / 'run', '--cfg-options', 'train_cfg.val_interval=5')
    checkpoint = tmp_path / 'run' / 'round_1.pth'
    done = run_tool('test', config, checkpoint, '--show-dir', tmp_path / 'painted')
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / 'painted').rglob('*.png'))) == 4
    done = subprocess.run([sys.executable, str(PACKAGED_TOOLS / 'test.py'), config, str(checkpoint), '--show-dir',
                           str(tmp_path / 'theirs'), '--cfg-options', 'default_hooks.visualization.interval=1'],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / 'theirs').rglob('*.png'))) == 4


def test_cfg_options_reach_federated(tiny_data, tmp_path):
    config = write_config(tiny_data, tmp_path)
    train(config, '--cfg-options', 'federated.clients_per_round=5', 'federated.partitioner.num_clients=12',
          'train_cfg.max_rounds=1')
    line = json.loads((next(tmp_path.glob('*/vis_data')) / 'rounds.json').read_text())
    manifest = json.loads((tmp_path / 'partition.json').read_text())
    assert len(line['cohort']) == 5 and len(manifest['clients']) == 12


def test_the_dumped_config_trains_again(tiny_data, tmp_path):
    config = write_config(tiny_data, tmp_path / 'a', **{'train_cfg.max_rounds': 1})
    train(config, '--work-dir', tmp_path / 'b')
    train(tmp_path / 'b' / 'config.py', '--work-dir', tmp_path / 'c')
    assert_same_bits(weights_of(tmp_path / 'b' / 'round_1.pth'), weights_of(tmp_path / 'c' / 'round_1.pth'))


def test_resume_goes_on_from_the_run_and_not_from_load_from(tiny_data, tmp_path):
    train(write_config(tiny_data, tmp_path / 'first', **{'train_cfg.max_rounds': 1}))
    config = write_config(tiny_data, tmp_path / 'second', load_from=str(tmp_path / 'first' / 'round_1.pth'),
                          **{'train_cfg.max_rounds': 1})
    train(config)
    done = train(config, '--resume', '--cfg-options', 'train_cfg.max_rounds=2')
    assert 'resumed epoch: 1' in done.stdout and 'second/round_1.pth' in done.stdout


def test_resume_without_a_checkpoint_starts_from_load_from(tiny_data, tmp_path):
    """As the first start of what is always started with --resume; another algorithm's weights are welcome too."""
    train(write_config(tiny_data, tmp_path / 'first', **{'train_cfg.max_rounds': 1}))
    config = write_config(tiny_data, tmp_path / 'second', load_from=str(tmp_path / 'first' / 'round_1.pth'),
                          **{'train_cfg.max_rounds': 1, 'federated.algorithm': dict(type='FedProx')})
    train(config, '--work-dir', tmp_path / 'plain')
    done = train(config, '--work-dir', tmp_path / 'resumed', '--resume')
    assert f'starts with round 1 from the weights in {tmp_path}/first/round_1.pth' in done.stdout + done.stderr
    assert_same_bits(weights_of(tmp_path / 'plain' / 'round_1.pth'), weights_of(tmp_path / 'resumed' / 'round_1.pth'))


def test_the_hook_may_be_listed_instead(tiny_data, tmp_path):
    """Without `federated`, for MMSegmentation's own tools/train.py and for ours."""
    federated = dict(type='FederatedHook', partitioner=dict(type='ClassPartitioner', num_clients=8),
                     clients_per_round=3, local_epochs=2)
    config = Path(write_config(tiny_data, tmp_path, custom_hooks=[federated], federated=None,
                               **{'train_cfg.max_rounds': 1}))
    train(config, '--work-dir', tmp_path / 'ours')
    done = subprocess.run([sys.executable, str(PACKAGED_TOOLS / 'train.py'), str(config), '--work-dir',
                           str(tmp_path / 'packaged')], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_same_bits(weights_of(tmp_path / 'ours' / 'round_1.pth'), weights_of(tmp_path / 'packaged' / 'round_1.pth'))


def test_settings_meant_for_iterations_are_noticed(tiny_data, tmp_path):
    schedule = [dict(type='PolyLR', end=40000, by_epoch=False)]
    done = train(write_config(tiny_data, tmp_path, param_scheduler=schedule, **{
        'train_cfg.max_rounds': 1, 'default_hooks.checkpoint.interval': 4000}))
    output = done.stdout + done.stderr
    assert 'param_scheduler.0.end=40000 is beyond max_rounds=1' in output
    assert 'default_hooks.checkpoint.interval=4000 is beyond max_rounds=1' in output


def test_amp_without_a_gpu_says_so(tiny_data, tmp_path):
    import torch
    if torch.cuda.is_available():
        pytest.skip('there is a GPU')
    done = train(write_config(tiny_data, tmp_path, **{'train_cfg.max_rounds': 1}), '--amp')
    assert 'Mixed precision needs a GPU' in done.stdout + done.stderr


def test_nothing_left_to_train_is_said(tiny_data, tmp_path):
    config = write_config(tiny_data, tmp_path, **{'train_cfg.max_rounds': 1, 'train_cfg.val_interval': 9})
    assert train(config).returncode == 0
    done = train(config, '--resume')
    assert 'Nothing left to train: the checkpoint is of round 1' in done.stdout + done.stderr


@pytest.mark.parametrize('tool', ['fed_train', 'test'])
def test_help_teaches(tool):
    done = run_tool(tool, '--help')
    assert done.returncode == 0
    for flag in ('--work-dir', '--cfg-options', '--launcher', 'examples:', f'python tools/{tool}.py'):
        assert flag in done.stdout


def make_cityscapes(folder: Path) -> None:
    """A folder tree with Cityscapes' names and real PNG files."""
    rng = np.random.RandomState(0)
    for split, cities, number in (('train', ('aachen', 'bremen'), 16), ('val', ('munster', ), 2)):
        for city in cities:
            for kind in ('leftImg8bit', 'gtFine'):
                (folder / kind / split / city).mkdir(parents=True)
            for i in range(number):
                label = cv2.resize(rng.permutation(np.r_[:19, 255]).astype(np.uint8).reshape(4, 5), (160, 80),
                                   interpolation=cv2.INTER_NEAREST)
                image = np.stack([label ^ 85, label ^ 170, 255 - label], -1)
                name = f'{city}_{i:06d}_000019'
                cv2.imwrite(str(folder / 'leftImg8bit' / split / city / f'{name}_leftImg8bit.png'), image)
                cv2.imwrite(str(folder / 'gtFine' / split / city / f'{name}_gtFine_labelTrainIds.png'), label)


def page_file(page: str, name: str) -> str:
    """The file of a page of docs/ that begins with its name."""
    (text,) = re.findall(rf'```\w+\n(# {name}[,\n].*?)```', (ROOT / 'docs' / page).read_text(), re.DOTALL)
    return text


def test_the_documentations_own_federation_and_method(tmp_path):
    """The documentation's config and its method, word by word, on a small crop."""
    make_cityscapes(tmp_path / 'cityscapes')
    config, method = page_file('training.md', 'my_config.py'), page_file('extending.md', 'my_method.py')
    (tmp_path / 'my_config.py').write_text(config)
    (tmp_path / 'my_method.py').write_text(method)
    (tmp_path / 'own.py').write_text(config.replace("'FedAvg'", "'NearEmbeddings'") +
                                     "custom_imports = dict(imports=['fedseg_mm', 'my_method'])\n")
    small = ['train_dataloader.dataset.data_root=cityscapes',
             'val_dataloader.dataset.data_root=cityscapes', 'val_dataloader.num_workers=0',
             'val_dataloader.persistent_workers=False', 'model.data_preprocessor.size=(64,64)',
             'val_dataloader.dataset.pipeline.1.scale=(160,80)', 'train_dataloader.dataset.pipeline.2.scale=(160,80)',
             'train_dataloader.dataset.pipeline.3.crop_size=(64,64)', 'federated.partitioner.num_clients=19',
             'federated.clients_per_round=1', 'federated.local_epochs=1', 'train_cfg.max_rounds=1']
    for name in ('my_config', 'own'):
        done = run_tool('fed_train', f'{name}.py', '--work-dir', name, '--cfg-options', *small, cwd=tmp_path,
                        PYTHONPATH='.')
        assert done.returncode == 0, done.stdout + done.stderr
        assert (tmp_path / name / 'round_1.pth').exists()
        assert ('loss_near: ' in done.stdout) == (name == 'own')


def test_the_cityscapes_config_trains_and_evaluates(tmp_path):
    """The config of the documentation with a small crop, batch and federation, on CPU."""
    make_cityscapes(tmp_path / 'cityscapes')
    config = ROOT / 'configs' / 'fedseg' / 'deeplabv3_cityscapes_noniid1.py'
    done = run_tool(
        'fed_train', config, '--work-dir', tmp_path / 'run', '--cfg-options', 'model.pretrained=None',
        'model.data_preprocessor.size=(64,64)', 'train_dataloader.dataset.pipeline.2.scale=(160,80)',
        'train_dataloader.dataset.pipeline.3.crop_size=(64,64)', 'train_dataloader.batch_size=2',
        'train_dataloader.num_workers=0', 'val_dataloader.num_workers=0', 'val_dataloader.persistent_workers=False',
        'federated.partitioner.num_clients=19', 'federated.clients_per_round=1', 'federated.local_epochs=1',
        'train_cfg.max_rounds=1', 'train_cfg.val_interval=1', 'default_hooks.checkpoint.save_best=None',
        FEDSEG_CITYSCAPES=str(tmp_path / 'cityscapes'))
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'Round(train) [1/1]' in done.stdout and 'bicycle' in done.stdout
    lines = (next(tmp_path.glob('run/*/vis_data')) / 'scalars.json').read_text().splitlines()
    metrics = next(line for line in map(json.loads, lines) if 'mIoU' in line)
    done = run_tool(
        'test', config, tmp_path / 'run' / 'round_1.pth', '--work-dir', tmp_path / 'test', '--cfg-options',
        'test_dataloader.num_workers=0', 'test_dataloader.persistent_workers=False',
        FEDSEG_CITYSCAPES=str(tmp_path / 'cityscapes'))
    assert done.returncode == 0, done.stdout + done.stderr
    assert figures(tmp_path / 'test')['mIoU'] == metrics['mIoU']
