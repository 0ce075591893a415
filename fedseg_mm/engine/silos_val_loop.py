"""Evaluation of the global model by the sites, each on its own images."""
import json
from pathlib import Path

import numpy as np
import torch
from mmengine.hooks import EMAHook
from mmengine.registry import LOOPS
from mmengine.runner.base_loop import BaseLoop
from mmseg.evaluation import IoUMetric
from torch.utils.data import DataLoader

from fedseg_mm.engine.backends import NVFlareBackend
from fedseg_mm.engine.backends.nvflare_backend import ImagesElsewhere
from fedseg_mm.engine.federated_loop import FederatedTrainLoop
from fedseg_mm.errors import FedSegError
from fedseg_mm.evaluation.confusion_matrix import class_iou


@LOOPS.register_module()
class SilosValLoop(BaseLoop):
    """Sums the confusion matrices of all sites: the figures are those of all their images together, exactly.

    ``vis_data/sites.json`` has a line per evaluation with each site's mIoU
    and pixels. MMSegmentation's ``IoUMetric`` makes the figures of the sums.

    Args:
        runner (Runner): MMEngine's runner.
        dataloader (dict): The config's ``val_dataloader``, whose pipeline
            sites have been sent.
        evaluator (dict): The config's ``val_evaluator``.
    """

    #: Whether its figures are those of one model, so that the IoU of every class is worth a curve.
    evaluates_one_model = True

    def __init__(self, runner, dataloader: dict, evaluator: dict | list) -> None:
        super().__init__(runner, DataLoader(ImagesElsewhere()))
        self.evaluator = runner.build_evaluator(evaluator)
        metrics = [type(metric).__name__ for metric in self.evaluator.metrics if not isinstance(metric, IoUMetric)]
        if metrics:
            raise FedSegError(f'sites send confusion matrices, of which {metrics[0]} cannot be computed: set '
                              "val_evaluator=dict(type='IoUMetric')")

    @torch.no_grad()
    def run(self) -> dict:
        """Launch the evaluation.

        Raises:
            FedSegError: No site has images to evaluate.
        """
        runner, loop = self.runner, self.runner._train_loop
        backend = loop.federation.backend if isinstance(loop, FederatedTrainLoop) else None
        if not isinstance(backend, NVFlareBackend):
            raise FedSegError('SilosValLoop has the sites of a federated training evaluate: test a checkpoint with '
                              "val_cfg=dict(type='ValLoop')")
        federation = backend.federation
        runner.call_hook('before_val')
        runner.call_hook('before_val_epoch')
        model = federation.model.state_dict()
        # of the model, which a hook such as EMA may have changed for the evaluation
        matrices = backend.evaluate({name: model[name] for name in federation.algorithm.shared_weights})
        if not matrices:  # which must not end the training
            runner.logger.warning(f'No site has evaluated the global model of round {runner.epoch}: there are no '
                                  'figures of it.')
            for hook in runner.hooks:  # others would take the figures of the evaluation before for those of this one
                if isinstance(hook, EMAHook):  # gives the model its own weights back
                    hook.after_val_epoch(runner)
            runner.call_hook('after_val')
            return {}
        for metric in self.evaluator.metrics:
            metric.results = [_areas(matrix) for matrix in matrices.values()]
        self.evaluator.dataset_meta = dict(classes=federation.summary.class_names)
        metrics = self.evaluator.evaluate(len(matrices))
        if federation.processors.privacy is None:  # which protects clients from whoever reads logs
            self._write(matrices)
        runner.call_hook('after_val_epoch', metrics=metrics)
        runner.call_hook('after_val')
        return metrics

    def _write(self, matrices: dict[str, np.ndarray]) -> None:
        sites = []
        for name, matrix in matrices.items():
            iou = class_iou(matrix)
            mean = None if np.isnan(iou).all() else round(float(np.nanmean(iou)), 2)
            sites.append(dict(site=name, mIoU=mean, pixels=int(matrix.sum())))
        self.runner.logger.info('Sites: ' + ', '.join(f'{site["site"]} mIoU {site["mIoU"]}' for site in sites))
        path = Path(self.runner.log_dir) / 'vis_data' / 'sites.json'
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open('a', encoding='utf-8') as file:
            file.write(json.dumps(dict(round=self.runner.epoch, sites=sites)) + '\n')


def _areas(matrix: np.ndarray) -> tuple[torch.Tensor, ...]:
    """What IoUMetric keeps of an image: areas of intersection, union, prediction and label, (C,) each."""
    counts = torch.from_numpy(matrix)
    both, predicted, labelled = counts.diagonal(), counts.sum(0), counts.sum(1)
    return tuple(area.double() for area in (both, predicted + labelled - both, predicted, labelled))
