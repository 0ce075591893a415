"""Evaluation of a checkpoint, federated or not."""
import argparse
import logging
import os.path as osp

from mmengine.config import Config
from mmengine.dataset import BaseDataset, ConcatDataset
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import CheckpointLoader
from mmseg.registry import METRICS
from torch import nn

from fedseg_mm.checks import check_evaluation
from fedseg_mm.cli import arguments
from fedseg_mm.cli.common import (
    config_of,
    joined_processes,
    one_sentence_errors,
    refuse_initial_model,
)
from fedseg_mm.config import check_data_folders, evaluator_dicts
from fedseg_mm.engine.tool_runner import ToolRunner
from fedseg_mm.errors import FedSegError
from fedseg_mm.registry import constructor_parameters, registered


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
                raise FedSegError(f'{option} names files after images, but {first} and {path} would share one: rename '
                                  'one of the images, or test one folder at a time '
                                  '(test_dataloader.dataset.data_prefix)')


def check_checkpoint(model: nn.Module, checkpoint: str) -> None:
    """Refuse weights of another model, whose place MMEngine would leave to the initial ones.

    Raises:
        FedSegError: The model has weights that the checkpoint lacks, or of
            another shape.
    """
    content = CheckpointLoader.load_checkpoint(checkpoint, 'cpu')
    refuse_initial_model(content, checkpoint)
    weights = content.get('state_dict', content)
    weights = {name.removeprefix('module.'): weight for name, weight in weights.items()}
    wrong = [name for name, weight in model.state_dict().items() if not name.endswith('num_batches_tracked') and (
        name not in weights or weights[name].shape != weight.shape)]
    if wrong:
        raise FedSegError(f'the checkpoint {checkpoint} is not of this model: {len(wrong)} of the weights are '
                          f'missing or of another shape, the first of them {wrong[0]}; name the config that it was '
                          'trained with')


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
            check_image_names(runner.test_dataloader.dataset, args)
            check_checkpoint(model, args.checkpoint)
            runner.test()
            if unseen:
                print_log(unseen, 'current', logging.WARNING)
