"""The federations and stock runs that the benchmarks compare: small images in files, one model, the same pipeline."""
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.registry import LOOPS, init_default_scope
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import nn

import fedseg_mm  # noqa: F401  first: it makes mmseg importable
from fedseg_mm.config import federate
from fedseg_mm.engine import FederatedTrainLoop
from fedseg_mm.models import accuracy_without_waiting

CLASSES = tuple(f'class {i}' for i in range(10))


@LOOPS.register_module()
class SteppedFederatedLoop(FederatedTrainLoop):
    """Leaves it to the benchmark when a round is trained (``run_epoch``)."""

    def run(self):
        self.started_at = 0
        self.runner.call_hook('before_train')
        self.federation.start(self.runner, self._max_epochs)


@LOOPS.register_module()
class SteppedIterLoop(IterBasedTrainLoop):
    """MMEngine's loop, whose steps the benchmark asks for."""

    def run(self):
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')

    def steps(self, number: int) -> None:
        """As in the loop's own ``run``, with the heads' accuracy that a client's steps have: the rest is compared."""
        with accuracy_without_waiting(self.runner.model):
            for _ in range(number):
                self.runner.model.train()
                self.run_iter(next(self.dataloader_iterator))


@contextmanager
def image_folder(number: int, size: tuple[int, int] = (120, 160)) -> Iterator[Path]:
    """A folder of images and labels of random blocks, deleted afterwards."""
    rng = np.random.RandomState(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / 'images').mkdir()
        (folder / 'labels').mkdir()
        for i in range(number):
            coarse = rng.randint(0, len(CLASSES), (5, 8)).astype(np.uint8)
            label = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_NEAREST)
            noise = rng.normal(0, 20, (*size, 3))
            image = np.clip(25 * label[..., None] + noise, 0, 255).astype(np.uint8)
            cv2.imwrite(str(folder / 'images' / f'{i:05d}.png'), image)
            cv2.imwrite(str(folder / 'labels' / f'{i:05d}.png'), label)
        yield folder


def model(crop: tuple[int, int], kind: str = 'narrow') -> dict:
    """A stock model: the CPU protocol's narrow UPerNet, BiSeNetV2, or DeepLabV3-R50."""
    base = dict(narrow='upernet_r18_narrow', bisenetv2='bisenetv2', deeplabv3='deeplabv3_r50-d8')[kind]
    cfg = Config.fromfile(Path(__file__).parents[1] / 'configs' / '_base_' / 'models' / f'{base}.py').model.to_dict()
    heads = [cfg['decode_head'], *np.atleast_1d(cfg.get('auxiliary_head') or [])]
    for head in heads:
        head['num_classes'] = len(CLASSES)
        head['loss_decode'] = dict(type='CrossEntropyLoss')
    cfg['pretrained'] = None
    cfg['data_preprocessor']['size'] = crop
    return cfg


def config(folder: Path, crop: tuple[int, int], batch_size: int, num_workers: int, kind: str = 'narrow') -> dict:
    """What the federated and the stock run have in common."""
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),
                dict(type='RandomResize', scale=crop[::-1], ratio_range=(1.0, 1.5), keep_ratio=True),
                dict(type='RandomCrop', crop_size=crop), dict(type='RandomFlip', prob=0.5), dict(type='PackSegInputs')]
    return dict(
        default_scope='mmseg', work_dir=str(folder / 'work_dirs'), randomness=dict(seed=0), log_level='ERROR',
        env_cfg=dict(cudnn_benchmark=True, mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0)),
        visualizer=dict(type='SegLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')]),
        model=model(crop, kind),
        train_dataloader=dict(
            batch_size=batch_size, num_workers=num_workers,
            dataset=dict(
                type='BaseSegDataset', img_suffix='.png', metainfo=dict(classes=CLASSES), data_root=str(folder),
                data_prefix=dict(img_path='images', seg_map_path='labels'), pipeline=pipeline)),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=5e-4)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=10**6, save_last=False)))


def federated_config(common: dict, clients: int, clients_per_round: int, local_epochs: int, **federated) -> Config:
    """A federation of clients with equally many images that annotate all classes."""
    cfg = Config(dict(
        **common, log_processor=dict(type='RoundLogProcessor'),
        federated=dict(partitioner=dict(type='IIDPartitioner', num_clients=clients),
                       clients_per_round=clients_per_round, local_epochs=local_epochs, **federated),
        train_cfg=dict(type='FederatedTrainLoop', max_rounds=10**4)))
    cfg.default_hooks.logger = dict(type='RoundLoggerHook')
    return cfg


def federation(cfg: Config, name: str = 'federated') -> FederatedTrainLoop:
    """A federated run that is ready for its first round."""
    federate(cfg)
    cfg.train_cfg['type'] = 'SteppedFederatedLoop'
    return started(cfg, name)


def stock(common: dict, name: str = 'stock') -> SteppedIterLoop:
    """MMSegmentation's own training, ready for its first step."""
    cfg = Config(dict(**common, train_cfg=dict(type='SteppedIterLoop', max_iters=10**6)))
    cfg.train_dataloader.update(persistent_workers=True, sampler=dict(type='InfiniteSampler', shuffle=True))
    cfg.default_hooks.logger = dict(type='LoggerHook', interval=50)
    cfg.default_hooks.checkpoint.by_epoch = False
    return started(cfg, name)


def started(cfg: Config, name: str):
    """MMEngine's Runner, up to where training starts."""
    init_default_scope('mmseg')
    cfg.experiment_name = name
    cfg.work_dir = f'{cfg.work_dir}/{name}'
    runner = Runner.from_cfg(cfg)
    runner.logger.setLevel(logging.ERROR)
    runner.train()
    return runner.train_loop


def fifty_megabytes() -> nn.Module:
    """A ResNet-18 with an FCN head, 12.5 million parameters."""
    from mmseg.registry import MODELS
    init_default_scope('mmseg')
    return MODELS.build(fifty_megabytes_config())


def fifty_megabytes_config() -> dict:
    norm_cfg = dict(type='BN')
    return dict(
        type='EncoderDecoder',
        data_preprocessor=dict(type='SegDataPreProcessor', size=(32, 32), pad_val=0, seg_pad_val=255),
        backbone=dict(type='ResNetV1c', depth=18, norm_cfg=norm_cfg, norm_eval=False, style='pytorch'),
        decode_head=dict(type='FCNHead', in_channels=512, in_index=3, channels=256, num_convs=1, concat_input=False,
                         num_classes=len(CLASSES), norm_cfg=norm_cfg, loss_decode=dict(type='CrossEntropyLoss')),
        train_cfg=dict(), test_cfg=dict(mode='whole'))
