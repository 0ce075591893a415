"""Shared fixtures: small real files, a small stock model, and runs of the real tools."""
import atexit
import functools
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

# for this process and those that it starts: tests run side by side, and sums depend on the number of threads
os.environ['OMP_NUM_THREADS'] = '1'

import cv2
import fedseg_mm  # noqa: F401  first: it makes mmseg importable
import numpy as np
import pytest
import torch
from _pytest.mark.expression import Expression
from hypothesis import HealthCheck, settings
from mmengine.config import Config
from mmengine.logging import MessageHub, MMLogger
from mmengine.visualization import Visualizer
from mmseg.utils import register_all_modules
from mmseg.visualization import SegLocalVisualizer

def asks_for_gpu(expression: str) -> bool:
    """Whether ``-m`` names the tests that need a GPU, and does not just fail to leave them out."""
    asked = Expression.compile(expression) if expression else None
    return asked is not None and asked.evaluate(lambda name, **_: name == 'gpu') and not asked.evaluate(
        lambda name, **_: False)


def pytest_configure(config):
    """Tests are of the CPU, also where there is a GPU, but for those of ``-m gpu``."""
    if not asks_for_gpu(config.getoption('markexpr')):
        os.environ['CUDA_VISIBLE_DEVICES'] = ''  # before anything has asked CUDA for its devices; for started tools too


# the same few examples in every run; many others, by chance, with --hypothesis-profile=many
settings.register_profile('few', max_examples=25, derandomize=True, deadline=None, database=None,
                          suppress_health_check=list(HealthCheck))
settings.register_profile('many', settings.get_profile('few'), max_examples=2000, derandomize=False, print_blob=True)
settings.load_profile('few')

ROOT = Path(__file__).parents[1]
CLASSES = ('sky', 'road', 'car', 'tree')


@pytest.fixture(scope='session', autouse=True)
def _cache(tmp_path_factory):
    """Tests leave nothing in the user's cache and find nothing there."""
    os.environ['FEDSEG_CACHE'] = str(tmp_path_factory.mktemp('cache'))
    torch.set_num_threads(1)
    register_all_modules()  # MMSegmentation's names, and its scope as the default


def forget_runs() -> None:
    """MMEngine knows runs by config name and second: one of the same second would log into another's files."""
    for logger in MMLogger._instance_dict.values():
        for handler in logger.handlers:
            handler.close()
    for kind in (MMLogger, MessageHub, Visualizer, SegLocalVisualizer):
        kind._instance_dict.clear()


@pytest.fixture(autouse=True)
def _own_loggers():
    yield
    forget_runs()


@pytest.fixture(scope='session')
def camvid() -> Path:
    """The folder with real CamVid."""
    folder = Path(os.environ.get('FEDSEG_CAMVID', ROOT.parent / 'shared' / 'data' / 'camvid'))
    if not (folder / 'img_dir' / 'train').is_dir():
        pytest.skip(f'needs real CamVid: there is no {folder}/img_dir/train; name the folder in FEDSEG_CAMVID')
    return folder.resolve()


def make_images(folder: Path, split: str, number: int, size=(48, 64), classes: int = len(CLASSES), seed: int = 0):
    """Write images of coloured stripes with noise, each showing two or three classes and some void."""
    rng = np.random.RandomState(seed)
    for kind in ('img_dir', 'ann_dir'):
        (folder / kind / split).mkdir(parents=True, exist_ok=True)
    for i in range(number):
        label = np.empty(size, np.uint8)
        shown = rng.permutation(classes)[:2 + i % 2]
        for part, cls in zip(np.array_split(np.arange(size[1]), len(shown)), shown):
            label[:, part] = cls
        colours = np.linspace(40, 220, classes)[label][..., None] * np.array([1, 0.7, 0.4])
        image = np.clip(colours + rng.normal(0, 20, (*size, 3)), 0, 255).astype(np.uint8)
        label[:4] = 255
        cv2.imwrite(str(folder / 'img_dir' / split / f'{i:03d}.png'), image)
        cv2.imwrite(str(folder / 'ann_dir' / split / f'{i:03d}.png'), label)


@pytest.fixture(scope='session')
def tiny_data(tmp_path_factory) -> Path:
    """24 training and 4 test images with 4 classes, read-only."""
    folder = tmp_path_factory.mktemp('data')
    make_images(folder, 'train', 24)
    make_images(folder, 'test', 4, seed=1)
    return folder


@pytest.fixture
def own_data(tmp_path) -> Path:
    """As ``tiny_data``, for tests that spoil it."""
    make_images(tmp_path / 'data', 'train', 24)
    make_images(tmp_path / 'data', 'test', 4, seed=1)
    return tmp_path / 'data'


def tiny_config(data: Path, work_dir: Path, **changes) -> Config:
    """A whole federated config: FastSCNN on images of 48x64, 8 clients, 3 rounds."""
    norm_cfg = dict(type='BN')
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
    dataset = dict(type='BaseSegDataset', img_suffix='.png', metainfo=dict(classes=CLASSES), data_root=str(data),
                   serialize_data=False)
    loader = dict(batch_size=2, num_workers=0)
    cfg = dict(
        default_scope='mmseg',
        custom_imports=dict(imports=['fedseg_mm']),
        randomness=dict(seed=5),
        work_dir=str(work_dir),
        log_processor=dict(type='RoundLogProcessor'),
        visualizer=dict(type='SegLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')]),
        default_hooks=dict(
            logger=dict(type='RoundLoggerHook'),
            checkpoint=dict(type='CheckpointHook', interval=1, filename_tmpl='round_{}.pth', save_best='mIoU')),
        model=dict(
            type='EncoderDecoder',
            data_preprocessor=dict(type='SegDataPreProcessor', mean=[128.] * 3, std=[60.] * 3, size=(48, 64),
                                   pad_val=0, seg_pad_val=255),
            backbone=dict(
                type='FastSCNN', downsample_dw_channels=(8, 8), global_in_channels=8, global_block_channels=(8, 8, 8),
                global_block_strides=(2, 2, 1), global_out_channels=8, higher_in_channels=8, lower_in_channels=8,
                fusion_out_channels=8, norm_cfg=norm_cfg),
            decode_head=dict(
                type='DepthwiseSeparableFCNHead', in_channels=8, channels=8, concat_input=False, in_index=-1,
                num_classes=len(CLASSES), norm_cfg=norm_cfg, dropout_ratio=0.1,
                loss_decode=dict(type='BackCELoss')),
            train_cfg=dict(), test_cfg=dict(mode='whole')),
        train_dataloader=dict(
            **loader,
            dataset=dict(
                **dataset, data_prefix=dict(img_path='img_dir/train', seg_map_path='ann_dir/train'),
                pipeline=[*pipeline,
                          dict(type='RandomResize', scale=(64, 48), ratio_range=(0.5, 1.5), keep_ratio=True),
                          dict(type='RandomCrop', crop_size=(48, 64)), dict(type='RandomFlip', prob=0.5),
                          dict(type='PhotoMetricDistortion'), dict(type='PackSegInputs')])),
        val_dataloader=dict(
            batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=dict(**dataset, data_prefix=dict(img_path='img_dir/test', seg_map_path='ann_dir/test'),
                         pipeline=[*pipeline, dict(type='PackSegInputs')])),
        val_evaluator=dict(type='IoUMetric', iou_metrics=['mIoU']),
        val_cfg=dict(type='ValLoop'),
        test_cfg=dict(type='TestLoop'),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.05, momentum=0.9)),
        param_scheduler=[dict(type='PolyLR', eta_min=1e-4, power=0.9, begin=0, end=3, by_epoch=True)],
        train_cfg=dict(type='FederatedTrainLoop', max_rounds=3, val_interval=3),
        federated=dict(
            partitioner=dict(type='ClassPartitioner', num_clients=8), clients_per_round=3, local_epochs=2))
    cfg['test_dataloader'], cfg['test_evaluator'] = cfg['val_dataloader'], cfg['val_evaluator']
    cfg = Config(cfg, format_python_code=False)  # formatting takes longer than the training
    cfg.merge_from_dict(changes)
    return cfg


def write_config(data: Path, work_dir: Path, **changes) -> str:
    """The config as a file, for the tools."""
    work_dir.mkdir(parents=True, exist_ok=True)
    path = work_dir / 'config.py'
    path.write_text(tiny_config(data, work_dir, **changes).pretty_text)
    return str(path)


class ToolServer:
    """A process that runs tools in forks of itself, see ``tests/tool_server.py``."""

    def __init__(self) -> None:
        self._process = subprocess.Popen([sys.executable, '-m', 'tests.tool_server'], cwd=ROOT, text=True,
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._folder = tempfile.TemporaryDirectory()
        atexit.register(self._process.kill)

    def start(self, tool: str, *arguments, cwd: Path | None = None, timeout: float = 600, **environment) -> None:
        """Start a tool; it and all its processes are killed after ``timeout`` seconds."""
        self._command = [str(ROOT / 'tools' / f'{tool}.py'), *map(str, arguments)]
        print(json.dumps(dict(
            script=self._command[0], arguments=self._command[1:], cwd=str(cwd or Path.cwd()), timeout=timeout,
            environment={**os.environ, **environment}, stdout=self._output('stdout'), stderr=self._output('stderr'))),
            file=self._process.stdin, flush=True)

    def finish(self) -> subprocess.CompletedProcess:
        answer = self._process.stdout.readline().strip()
        if answer == 'timeout':
            raise subprocess.TimeoutExpired(self._command, 0)
        return subprocess.CompletedProcess(self._command, int(answer), *(
            Path(self._output(name)).read_text() for name in ('stdout', 'stderr')))

    def _output(self, name: str) -> str:
        return f'{self._folder.name}/{name}'


@functools.cache
def tool_server(number: int) -> ToolServer:
    """One of this test process's servers, started when it is first needed."""
    return ToolServer()


def run_tool(tool: str, *arguments, cwd: Path | None = None, **environment) -> subprocess.CompletedProcess:
    """Run one of the tools as a user would."""
    tool_server(0).start(tool, *arguments, cwd=cwd, **environment)
    return tool_server(0).finish()


def run_processes(number: int, tool: str, *arguments) -> subprocess.CompletedProcess:
    """Run one of the tools in several processes, in the environment that ``torchrun`` gives them.

    Returns:
        subprocess.CompletedProcess: The exit code of the first that failed,
        and the outputs of all.
    """
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    for rank in range(number):
        tool_server(rank).start(
            tool, *arguments, '--launcher', 'pytorch', RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(number),
            LOCAL_WORLD_SIZE=str(number), MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    done = [tool_server(rank).finish() for rank in range(number)]
    return subprocess.CompletedProcess(done[0].args, next((one.returncode for one in done if one.returncode), 0),
                                       *(''.join(getattr(one, name) for one in done) for name in ('stdout', 'stderr')))


def weights_of(checkpoint: Path) -> dict[str, torch.Tensor]:
    """The weights of a checkpoint file, read as anyone would read them."""
    return torch.load(checkpoint, weights_only=True)['state_dict']


def assert_same_bits(first: dict, second: dict) -> None:
    """Equal weights, bit for bit."""
    assert first.keys() == second.keys()
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert not different, f'{len(different)} of {len(first)} tensors differ, e.g. {different[0]}'
