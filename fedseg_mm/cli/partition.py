"""Who holds what, before anything is trained."""
import argparse
from pathlib import Path

from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS

from fedseg_mm.cli.common import (
    CfgOptions,
    add_data_argument,
    add_federated_argument,
    config_of,
    one_sentence_errors,
)
from fedseg_mm.cli.parser import ToolParser
from fedseg_mm.config import CFG_OPTIONS_HELP, check_data_folders, federated_section
from fedseg_mm.datasets import partition_dataset
from fedseg_mm.engine.federated_loop import build_federation
from fedseg_mm.errors import FedSegError
from fedseg_mm.validation import check_positive
from fedseg_mm.visualization import draw_client_views, draw_partition

EPILOG = """\
examples:
  look               python tools/fed_partition.py configs/fedavg/upernet_streetscenes_noniid1_backce.py
  another split      python tools/fed_partition.py CONFIG --cfg-options federated.partitioner.classes_per_client=2
  what clients see   python tools/fed_partition.py CONFIG --show 2
  train on it        python tools/fed_train.py CONFIG --cfg-options \\
                         federated.partitioner=work_dirs/CONFIG/partition.json

Written into the work dir: partition.json, the manifest, which names each client's images and annotated classes; a
config's federated.partitioner takes its path, here or on another machine with the same data set, and it may be
written by hand. partition.png, the picture of clients and classes. With --show, clients.png: images of each client and
their labels as the client is given them, unannotated pixels hatched."""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = ToolParser(
        'fed_partition', 'Show which client holds and annotates what, before anything is trained.', EPILOG)
    parser.add_argument('config', help='config file with a `federated` section')
    parser.add_argument('--work-dir', help='where partition.json and partition.png go (default: '
                        'work_dirs/CONFIG_NAME)')
    parser.add_argument('--show', nargs='?', const=2, type=int, metavar='N',
                        help='draw N images (default: 2) of each client too, with the labels that it is given')
    add_federated_argument(parser)
    add_data_argument(parser)
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, metavar='KEY=VALUE', help=CFG_OPTIONS_HELP)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    with one_sentence_errors('fed_partition'):
        if args.show is not None:
            check_positive('--show', args.show)
        cfg = config_of(args)
        federated = federated_section(cfg)
        check_data_folders(cfg, ('train_dataloader', ))
        federation = build_federation(federated)
        if not cfg.get('train_dataloader'):
            raise FedSegError(f'{args.config} has no `train_dataloader`, whose data set could be partitioned')
        init_default_scope(cfg.get('default_scope', 'mmseg'))
        loader = cfg.train_dataloader
        dataset = DATASETS.build(loader.dataset)
        summary = partition_dataset(dataset, federation.partitioner, loader.get('num_workers', 0))
        federation.take_clients(summary)
        print(summary.client_table())
        print(summary.class_table())
        print(f'Partition {summary.partition.hash[:12]}: {len(summary.partition)} clients, '
              f'{summary.num_images.sum()} of {len(summary.image_names)} images, '
              f'{summary.num_images.min()} to {summary.num_images.max()} per client.')
        for sentence in summary.warnings(loader.get('batch_size', 1)):
            print(f'Warning: {sentence}')
        manifest, picture = (Path(cfg.work_dir) / name for name in ('partition.json', 'partition.png'))
        summary.partition.save(manifest, summary.image_names, summary.class_names)
        draw_partition(summary, picture)
        print(f'Manifest: {manifest} (reuse it with --cfg-options federated.partitioner={manifest})\n'
              f'Picture:  {picture}')
        if args.show is not None:
            views = Path(cfg.work_dir) / 'clients.png'
            drawn = draw_client_views(summary, dataset, args.show, views)
            print(f'Clients:  {views}' + (f' (the first {drawn})' if drawn < len(summary.partition) else ''))
