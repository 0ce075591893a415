"""Who holds what, before anything is trained."""
from pathlib import Path

from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS

from fedseg_mm.cli import arguments
from fedseg_mm.cli.common import (
    config_of,
    one_sentence_errors,
)
from fedseg_mm.config import check_data_folders, federated_section, warn_of_workers
from fedseg_mm.datasets import partition_dataset
from fedseg_mm.datasets.partition_summary import number_range
from fedseg_mm.errors import FedSegError
from fedseg_mm.federation import build_federation
from fedseg_mm.validation import check_positive
from fedseg_mm.visualization import draw_client_views, draw_partition


def main(argv: list[str] | None = None) -> None:
    args = arguments.partition(argv)
    with one_sentence_errors('fed_partition'):
        if args.show is not None:
            check_positive('--show', args.show)
        cfg = config_of(args)
        federated = federated_section(cfg)
        check_data_folders(cfg, ('train_dataloader', ))
        federation = build_federation(federated)
        if not cfg.get('train_dataloader'):
            raise FedSegError(f'{args.config} has no `train_dataloader` with a data set to partition')
        init_default_scope(cfg.get('default_scope', 'mmseg'))
        loader = cfg.train_dataloader
        warn_of_workers(cfg, ('train_dataloader', ))
        dataset = DATASETS.build(loader.dataset)
        summary = partition_dataset(dataset, federation.partitioner, loader.get('num_workers', 0))
        federation.take_clients(summary)
        print(summary.client_table())
        print(summary.class_table())
        print(f'Partition {summary.partition.hash[:12]}: {len(summary.partition)} clients, '
              f'{summary.num_images.sum()} of {len(summary.image_names)} images, '
              f'{number_range(summary.num_images)} per client.')
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
