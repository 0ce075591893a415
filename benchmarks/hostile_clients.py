"""mIoU of every aggregator with 0 to 30 % hostile clients, per attack and split.

    python benchmarks/hostile_clients.py                      # small street scenes
    python benchmarks/hostile_clients.py --data camvid        # CamVid at 160x120, from ImageNet weights
    python benchmarks/hostile_clients.py --only 0 20 --attacks SignFlip --splits noniid1

Every cell of the tables is one training with the same seed, all clients in every round. What the JSON file has already
stays, so that an interrupted run goes on; the tables and the picture are made of whatever is there.
"""
import argparse
import functools
import json
import os
import tempfile
import time
from pathlib import Path

import matplotlib
import torch
from mmengine.config import Config
from mmengine.runner import Runner

import fedseg_mm
from fedseg_mm.config import federate, find_config
from fedseg_mm.datasets.transforms import load_street_scene
from fedseg_mm.files import write_json

matplotlib.use('Agg')
HERE = Path(__file__).parent
DOCS = HERE.parent / 'docs' / 'figures' / 'robustness'
SHARES = (0, 10, 20, 30)
ATTACKS = {
    'SignFlip': dict(scale=5.0),
    'Scaling': dict(scale=10.0),
    'GaussianNoise': dict(ratio=10.0),
    'LabelFlip': {},
    'ALIE': dict(z=1.5),
    'InnerProductManipulation': dict(epsilon=2.0),
}
#: By data; on CamVid two per class.
CLIENTS = {'scenes': 10, 'camvid': 22}
AGGREGATORS = ('WeightedMean', 'NormClippedMean', 'TrimmedMean', 'CoordinateMedian', 'GeometricMedian', 'MultiKrum',
               'Krum')
NAMES = {'iid': 'clients that are alike (iid)', 'noniid1': 'one annotated class per client (noniid1)'}


def aggregators(data: str) -> dict[str, dict]:
    """Arguments of each; those that ask for it are told the greatest share of hostile clients."""
    malicious = dict(num_malicious=CLIENTS[data] * max(SHARES) // 100)
    return {**dict.fromkeys(AGGREGATORS, {}), 'NormClippedMean': dict(max_norm=0.5), 'TrimmedMean': dict(trim=0.3),
            'MultiKrum': malicious, 'Krum': malicious}


def splits(data: str) -> dict[str, dict]:
    return {'iid': dict(type='IIDPartitioner', num_clients=CLIENTS[data], seed=0),
            'noniid1': dict(type='ClassPartitioner', num_clients=CLIENTS[data], classes_per_client=1, seed=0)}


def config(data: str, split: str, aggregator: str, attack: str, share: int, rounds: int) -> Config:
    """The config of one cell."""
    name = 'upernet_streetscenes' if data == 'scenes' else 'upernet_camvid160x120'
    cfg = backce_config(name)
    federated = dict(partitioner=splits(data)[split], clients_per_round=CLIENTS[data], local_epochs=1,
                     algorithm=dict(type='FedAvg', weighting='equal'), sampler=dict(type='AllClientsSampler'),
                     aggregator=dict(type=aggregator, **aggregators(data)[aggregator]))
    if share:
        federated['attacks'] = [dict(type=attack, share=share / 100, **ATTACKS[attack])]
    cfg = Config(cfg.to_dict(), format_python_code=False)
    cfg.federated = federated
    cfg.train_cfg = dict(type='FederatedTrainLoop', max_rounds=rounds, val_interval=rounds)
    cfg.param_scheduler = [dict(type='PolyLR', eta_min=1e-3, power=0.9, begin=0, end=rounds, by_epoch=True)]
    cfg.merge_from_dict({'default_hooks.checkpoint': None, 'log_level': 'ERROR', 'randomness': dict(seed=0),
                         'visualizer.vis_backends': []})
    if data == 'scenes':
        size = (64, 48)
        cfg.merge_from_dict({
            'model.data_preprocessor.size': size[::-1], 'train_dataloader.dataset.num_images': 120,
            'train_dataloader.dataset.size': size, 'val_dataloader.dataset.num_images': 40,
            'val_dataloader.dataset.size': size, 'val_dataloader.batch_size': 20})
        norm = dict(type='BN')
        cfg.model.backbone = dict(
            type='ResNetV1c', depth=18, stem_channels=16, base_channels=16, num_stages=2, out_indices=(0, 1),
            strides=(1, 2), dilations=(1, 1), norm_cfg=norm, norm_eval=False, style='pytorch')
        cfg.model.decode_head = dict(
            type='FCNHead', in_channels=[16, 32], in_index=[0, 1], input_transform='resize_concat', channels=32,
            num_convs=1, concat_input=False, dropout_ratio=0, num_classes=10, norm_cfg=norm, align_corners=False,
            loss_decode=dict(type='BackCELoss'))
        cfg.train_dataloader.dataset.pipeline = [dict(type='LoadStreetScene'), dict(type='RandomFlip', prob=0.5),
                                                 dict(type='PackSegInputs')]
        cfg.val_dataloader.dataset.pipeline = [dict(type='LoadStreetScene'), dict(type='PackSegInputs')]
    else:
        pretrained, size = backce_config('lite0_camvid240x180'), cfg.model.data_preprocessor.size
        cfg.model, cfg.optim_wrapper = pretrained.model, pretrained.optim_wrapper
        cfg.model.data_preprocessor.size = size
    return cfg


def backce_config(name: str) -> Config:
    return Config.fromfile(find_config(f'fedseg_mm::fedavg/{name}_noniid1_backce.py'), format_python_code=False)


def measure(cfg: Config) -> float | None:
    """mIoU at the end, in percent; None where no update could be used any more."""
    with tempfile.TemporaryDirectory() as folder:
        cfg.work_dir, cfg.experiment_name = folder, f'cell_{time.time_ns()}'
        federate(cfg)
        runner = Runner.from_cfg(cfg)
        try:
            runner.train()
        except fedseg_mm.FedSegError:
            return None
        value = runner.message_hub.get_scalar('val/mIoU').current()
        return 0.0 if value != value else round(float(value), 2)


def key(split: str, aggregator: str, attack: str, share: int) -> str:
    return f'{split} {aggregator} {attack if share else "-"} {share}'


def tables(results: dict, splits: list[str], shares: list[int]) -> str:
    """Markdown: per split what each aggregator costs without an attack, and mIoU per attack and share."""
    def cell(*place) -> str:
        name = key(*place)
        if name not in results:
            return ''
        return 'ended' if results[name] is None else f'{results[name]:.1f}'

    lines = []
    for split in splits:
        if key(split, 'WeightedMean', '', 0) not in results:
            continue
        hostile = [(attack, share) for attack in ATTACKS for share in shares if share and any(
            key(split, aggregator, attack, share) in results for aggregator in AGGREGATORS)]
        lines += [f'### {NAMES[split][0].upper()}{NAMES[split][1:]}', '', '| aggregator | none | ' + ' | '.join(
            f'{attack} {share} %' for attack, share in hostile) + ' |', '|---|' + '---:|' * (len(hostile) + 1)]
        for aggregator in AGGREGATORS:
            lines.append(f'| {aggregator} | {cell(split, aggregator, "", 0)} | ' + ' | '.join(
                cell(split, aggregator, attack, share) for attack, share in hostile) + ' |')
        lines.append('')
    return '\n'.join(lines)


def draw(results: dict, splits: list[str], shares: list[int], path: Path) -> None:
    """mIoU against the share of hostile clients: a row of panels per split, a line per aggregator."""
    import matplotlib.pyplot as plt
    attacks = [attack for attack in ATTACKS if any(f' {attack} ' in name for name in results)] or list(ATTACKS)
    figure, panels = plt.subplots(len(splits), len(attacks), figsize=(max(3 * len(attacks), 9), 2.8 * len(splits)),
                                  sharey=True, squeeze=False, layout='constrained')
    for row, split in zip(panels, splits):
        for panel, attack in zip(row, attacks):
            for aggregator in AGGREGATORS:
                found = [(share, results[name] or 0.0) for share in shares
                         if (name := key(split, aggregator, attack, share)) in results]
                panel.plot(*zip(*found), marker='o', label=aggregator) if found else None
            panel.set_title(f'{attack}, {split}', fontsize=9)
            panel.set_xlabel('hostile clients, %', fontsize=8)
        row[0].set_ylabel('mIoU, %')
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside lower center', ncols=len(AGGREGATORS), fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', choices=('scenes', 'camvid'), default='scenes')
    parser.add_argument('--only', type=int, nargs='+', choices=SHARES, default=list(SHARES), metavar='PERCENT',
                        help='shares of hostile clients to train (default: 0 10 20 30)')
    parser.add_argument('--attacks', nargs='+', choices=list(ATTACKS), default=list(ATTACKS), metavar='ATTACK')
    parser.add_argument('--aggregators', nargs='+', choices=AGGREGATORS, default=AGGREGATORS,
                        metavar='AGGREGATOR')
    parser.add_argument('--splits', nargs='+', choices=list(NAMES), default=list(NAMES), metavar='SPLIT')
    parser.add_argument('--rounds', type=int, help='default: 15, on CamVid 6')
    parser.add_argument('--json', type=Path, help='default: benchmarks/results/hostile_DATA.json')
    parser.add_argument('--picture', type=Path, help='default: docs/figures/robustness/DATA.png')
    args = parser.parse_args()
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    torch.set_num_threads(1)
    from mmseg.utils import register_all_modules  # after fedseg_mm, which makes it importable
    register_all_modules()
    load_street_scene.paint_scene = functools.cache(load_street_scene.paint_scene)  # cells share their scenes
    rounds = args.rounds or dict(scenes=15, camvid=6)[args.data]
    file = args.json or HERE / 'results' / f'hostile_{args.data}.json'
    kept = json.loads(file.read_text()) if file.is_file() else {}
    settings = dict(rounds=rounds, attacks=ATTACKS, aggregators=aggregators(args.data), splits=splits(args.data))
    results = kept['results'] if kept.get('settings') == settings else {}
    cells = [(split, aggregator, attack, share) for split in args.splits for share in args.only
             for attack in (args.attacks if share else args.attacks[:1]) for aggregator in args.aggregators]
    for place, (split, aggregator, attack, share) in enumerate(cells, 1):
        name = key(split, aggregator, attack, share)
        if name not in results:
            start = time.perf_counter()
            results[name] = measure(config(args.data, split, aggregator, attack, share, rounds))
            write_json(file, dict(settings=settings, results=results))
            print(f'[{place}/{len(cells)}] {name} %: mIoU {results[name]}, {time.perf_counter() - start:.0f} s',
                  flush=True)
    print(tables(results, list(NAMES), list(SHARES)))
    shown = [split for split in NAMES if any(name.startswith(f'{split} ') for name in results)]
    draw(results, shown, list(SHARES), args.picture or DOCS / f'{args.data}.png')


if __name__ == '__main__':
    main()
