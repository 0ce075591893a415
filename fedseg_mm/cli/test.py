"""Evaluation of a checkpoint, federated or not."""
import argparse
import copy
import logging
import os.path as osp
from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config
from mmengine.dataset import BaseDataset, ConcatDataset
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import CheckpointLoader
from mmseg.evaluation import IoUMetric
from mmseg.registry import DATASETS, METRICS
from torch import nn

from fedseg_mm.algorithms import FedAvg
from fedseg_mm.checks import check_evaluation, first_process_first
from fedseg_mm.cli import arguments
from fedseg_mm.cli.common import (
    config_of,
    joined_processes,
    one_sentence_errors,
    refuse_initial_model,
)
from fedseg_mm.config import check_data_folders, evaluator_dicts, federated_section
from fedseg_mm.config.sections import plain_datasets_of
from fedseg_mm.datasets import PartitionSummary, partition_dataset
from fedseg_mm.engine.hooks import PredictionSamplesHook, SegmentorWeightsHook
from fedseg_mm.engine.tool_runner import ToolRunner
from fedseg_mm.errors import FedSegError, shown
from fedseg_mm.evaluation import ConfusionMatrix, keep_class_iou, write_matrix
from fedseg_mm.evaluation.per_client import PerClientEvaluation, client_table, own_weights, write_figures
from fedseg_mm.federation import build_federation
from fedseg_mm.registry import constructor_parameters, registered
from fedseg_mm.visualization import draw_confusion


def paint_predictions(cfg: Config, args: argparse.Namespace) -> None:
    """Turn on MMSegmentation's visualization hook."""
    hook = cfg.get('default_hooks', {}).get('visualization')
    if hook is None:
        raise FedSegError("--show and --show-dir need default_hooks.visualization=dict(type='SegVisualizationHook')")
    hook.update(draw=True, interval=1, show=args.show, wait_time=args.wait_time)
    if args.show_dir:
        cfg.visualizer.save_dir = args.show_dir


def write_label_maps(cfg: Config, folder: str) -> None:
    """Have the first metric that can write label maps do so.

    Raises:
        FedSegError: None of them can.
    """
    for metric in evaluator_dicts(cfg.test_evaluator):
        cls = registered(METRICS, metric.get('type'))
        if isinstance(cls, type) and 'output_dir' in constructor_parameters(cls):
            metric.update(output_dir=folder, keep_results=True)
            return
    raise FedSegError('--out needs a metric in test_evaluator that writes label maps, such as '
                      "dict(type='IoUMetric', iou_metrics=['mIoU'])")


def use_tta(cfg: Config) -> None:
    """Wrap the model and its pipeline for test time augmentation."""
    for key in ('tta_model', 'tta_pipeline'):
        if cfg.get(key) is None:
            raise FedSegError(f'--tta needs `{key}` in the config')
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
    cfg.model = dict(**cfg.tta_model, module=cfg.model)


def check_image_names(dataset, args: argparse.Namespace) -> None:
    """Refuse images whose maps or paintings MMSegmentation would write to one file.

    Raises:
        FedSegError: Two images have one name; names them.
    """
    name_of = {'--out': lambda path: osp.splitext(osp.basename(path))[0], '--show-dir': osp.basename}
    for option, folder in (('--out', args.out), ('--show-dir', args.show_dir)):
        if not folder or not isinstance(dataset, (BaseDataset, ConcatDataset)):
            continue
        seen: dict[str, str] = {}
        for i in range(len(dataset)):
            path = dataset.get_data_info(i)['img_path']
            first = seen.setdefault(name_of[option](path), path)
            if first != path:
                raise FedSegError(f'{option} names files after images, but {first} and {path} would share a name: '
                                  'rename one of the images, or test one folder at a time '
                                  '(test_dataloader.dataset.data_prefix)')


def check_checkpoint(model: nn.Module, content: dict, checkpoint: str) -> None:
    """Refuse weights of another model, whose place MMEngine would leave to the initial ones.

    Raises:
        FedSegError: The model has weights that the checkpoint lacks, or of
            another shape.
    """
    weights = content.get('state_dict', content)
    weights = {name.removeprefix('module.'): weight for name, weight in weights.items()}
    wrong = [name for name, weight in model.state_dict().items() if not name.endswith('num_batches_tracked') and (
        name not in weights or getattr(weights[name], 'shape', None) != weight.shape)]
    if wrong:
        raise FedSegError(f'the checkpoint {checkpoint} is not of this model: {len(wrong)} of the weights are '
                          f'missing or of another shape, the first of them {wrong[0]}; name the config that it was '
                          'trained with')


def count_confusions(runner: ToolRunner, state: dict) -> ConfusionMatrix | None:
    """Have the evaluation mark the classes that nobody annotates, and count what is taken for what.

    Args:
        runner (ToolRunner): MMEngine's runner.
        state (dict): The checkpoint's ``federated``; empty where it has none.

    Returns:
        ConfusionMatrix, optional: Has counted once the test is over; None
        where no image's label is evaluated.
    """
    evaluator = runner.test_loop.evaluator
    keep_class_iou(evaluator, state.get('annotated_classes'))
    if not any(isinstance(metric, IoUMetric) and not metric.format_only for metric in evaluator.metrics):
        return None
    confusion = ConfusionMatrix()
    confusion.dataset_meta = runner.test_dataloader.dataset.metainfo
    evaluator.metrics.append(confusion)
    return confusion


def prepare_clients(cfg: Config, state: dict, args: argparse.Namespace) -> tuple[PartitionSummary, object, FedAvg]:
    """The clients' images as ``--per-client`` evaluates them, and who holds them.

    Returns:
        tuple: Who holds what, the training data with the pipeline of the test
        images, and the federated method.

    Raises:
        FedSegError: The config has no federation, or another than the
            checkpoint.
    """
    if args.tta:
        raise FedSegError('--per-client cannot be combined with --tta: leave one of them out')
    federation = build_federation(federated_section(cfg))
    check_data_folders(cfg, ('train_dataloader', ))
    wanted = copy.deepcopy(cfg.train_dataloader.dataset)
    _, test = next(plain_datasets_of(cfg.test_dataloader.dataset, ''))
    for _, part in plain_datasets_of(wanted, ''):
        part['pipeline'] = copy.deepcopy(test.get('pipeline') or [])
    dataset = DATASETS.build(wanted)
    with first_process_first():
        summary = partition_dataset(dataset, federation.partitioner, cfg.train_dataloader.get('num_workers', 0))
    if state and (trained_on := shown(state.get('partition'))) != summary.partition.hash:
        raise FedSegError(f'the checkpoint {args.checkpoint} was trained on the partition {trained_on[:12]}, '
                          f'but the config gives {summary.partition.hash[:12]}: name the config of the training, such '
                          'as the copy in its work dir, and the same data')
    return summary, dataset, federation.algorithm


def evaluate_clients(runner: ToolRunner, clients: tuple[PartitionSummary, object, FedAvg], state: dict,
                     on_test: ConfusionMatrix | None, checkpoint: str) -> None:
    """Evaluate for every client, print a table, and write ``per_client.json``."""
    summary, dataset, algorithm = clients
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    kept: Iterator[tuple[int, dict]] = iter(())
    if algorithm.own_names(model):
        kept = own_weights(Path(checkpoint), state, next(model.parameters()).device)
    matrix = [on_test.matrices.get(0) if on_test is not None else None]  # the first process has counted
    broadcast_object_list(matrix)
    figures = PerClientEvaluation(runner, dataset, summary).run(matrix[0], kept)
    if is_main_process():
        path = Path(runner.log_dir) / 'per_client.json'
        write_figures(figures, checkpoint, path)
        print_log(f'\n{client_table(figures)}\nClients      {path}', 'current')


def main(argv: list[str] | None = None) -> None:
    args = arguments.test(argv)
    with one_sentence_errors('test'):
        cfg = config_of(args)
        check_data_folders(cfg, ('test_dataloader', ))
        cfg.load_from = args.checkpoint
        if args.show or args.show_dir:
            paint_predictions(cfg, args)
        if args.tta:
            use_tta(cfg)
        if args.out:
            write_label_maps(cfg, args.out)
        with joined_processes(cfg):
            runner = ToolRunner.from_cfg(cfg)
            model = runner.model.module if is_model_wrapper(runner.model) else runner.model
            unseen = None
            if args.tta:
                model = model.module
            else:  # several pipelines per image
                unseen = check_evaluation(runner.test_dataloader, runner.test_loop.evaluator)
            runner.register_hook(SegmentorWeightsHook())
            check_image_names(runner.test_dataloader.dataset, args)
            content = CheckpointLoader.load_checkpoint(args.checkpoint, 'cpu')
            state = content.get('federated') or {}
            clients = prepare_clients(cfg, state, args) if args.per_client else None
            if clients is None:
                refuse_initial_model(content, args.checkpoint)
            check_checkpoint(model, content, args.checkpoint)
            confusion = None
            if state.get('type') == 'LocalOnly':  # the global model is the initial one
                runner.load_or_resume()
            else:
                confusion = count_confusions(runner, state)
                if not args.tta:
                    runner.register_hook(PredictionSamplesHook())
                runner.test()
                if unseen:
                    print_log(unseen, 'current', logging.WARNING)
                if confusion is not None and confusion.matrices:
                    folder, names = Path(runner.log_dir), runner.test_dataloader.dataset.metainfo['classes']
                    write_matrix(confusion.matrices[0], names, folder / 'confusion.csv')
                    draw_confusion(confusion.matrices[0], names, folder / 'confusion.png')
                    print_log(f'Confusion    {folder / "confusion.png"}, and .csv in pixels', 'current')
            if clients is not None:
                evaluate_clients(runner, clients, state, confusion, args.checkpoint)
