"""IoU of every class, for logs and curves; MMSegmentation prints it and keeps the mean."""
from collections.abc import Collection

import numpy as np
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmseg.evaluation import IoUMetric


class _ClassIoUMetric(IoUMetric):
    """MMSegmentation's metric, which also keeps what its table shows, and says which classes nobody annotates."""

    #: Class -> IoU in percent, of the last evaluation; classes that are neither shown nor predicted are left out.
    class_iou: dict[str, float]
    #: Classes that a client annotates; None where that is not known.
    annotated: frozenset[str] | None = None

    def compute_metrics(self, results: list) -> dict[str, float]:
        meta: dict = self.dataset_meta or {}  # type: ignore[has-type]
        classes = meta.get('classes', ())
        others = [name for name in classes if name not in self.annotated] if self.annotated is not None else []
        if others:
            self.dataset_meta = {**meta, 'classes': [f'{name} *' if name in others else name for name in classes]}
        try:
            metrics = super().compute_metrics(results)
        finally:
            self.dataset_meta = meta
        self.class_iou = {}
        if results and not self.format_only:
            intersect, union = (np.sum([np.asarray(one) for one in areas], 0) for areas in list(zip(*results))[:2])
            exact = {name: 100 * float(both / either)
                     for name, both, either in zip(classes, intersect, union) if either > 0}
            self.class_iou = {name: round(value, 2) for name, value in exact.items()}
            kept = [value for name, value in exact.items() if name not in others]
            if others and 'mIoU' in metrics and kept:
                metrics['mIoU_annotated'] = float(np.round(np.mean(kept), 2))
                MMLogger.get_current_instance().info(f'* No client annotates {", ".join(others)}: mIoU_annotated is '
                                                     'the mean over the other classes.')
        return metrics


class ClassIoU:
    """The IoU of every class in the evaluations of one evaluator."""

    def __init__(self, metric: _ClassIoUMetric | None) -> None:
        self._metric = metric

    def last(self) -> dict[str, float]:
        """Class -> IoU in percent, of the last evaluation; empty where no metric gives it."""
        return getattr(self._metric, 'class_iou', {})


def keep_class_iou(evaluator: Evaluator, annotated: Collection[str] | None = None) -> ClassIoU:
    """Have MMSegmentation's IoUMetric of an evaluator keep the IoU of every class; third parties' are left alone.

    Args:
        evaluator (Evaluator): MMEngine's.
        annotated (Collection[str], optional): Classes that a client
            annotates. The others are then marked in the table, and
            ``mIoU_annotated`` stands beside mIoU. Defaults to None: it is not
            known.
    """
    for metric in getattr(evaluator, 'metrics', ()):
        if type(metric) is IoUMetric:
            metric.__class__ = _ClassIoUMetric
        if isinstance(metric, _ClassIoUMetric):
            metric.annotated = None if annotated is None else frozenset(annotated)
            return ClassIoU(metric)
    return ClassIoU(None)
