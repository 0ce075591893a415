"""IoU of every class, for logs and curves; MMSegmentation prints it and keeps the mean."""
import numpy as np
from mmengine.evaluator import Evaluator
from mmseg.evaluation import IoUMetric


class _ClassIoUMetric(IoUMetric):
    """MMSegmentation's metric, which also keeps what its table shows."""

    #: Class -> IoU in percent, of the last evaluation; classes that are neither shown nor predicted are left out.
    class_iou: dict[str, float]

    def compute_metrics(self, results: list) -> dict[str, float]:
        metrics = super().compute_metrics(results)
        self.class_iou = {}
        if results and not self.format_only:
            intersect, union = (np.sum([np.asarray(one) for one in areas], 0) for areas in list(zip(*results))[:2])
            classes = (self.dataset_meta or {}).get('classes', ())
            self.class_iou = {name: round(100 * float(both / either), 2)
                              for name, both, either in zip(classes, intersect, union) if either > 0}
        return metrics


class ClassIoU:
    """The IoU of every class in the evaluations of one evaluator."""

    def __init__(self, metric: _ClassIoUMetric | None) -> None:
        self._metric = metric

    def last(self) -> dict[str, float]:
        """Class -> IoU in percent, of the last evaluation; empty where no metric gives it."""
        return getattr(self._metric, 'class_iou', {})


def keep_class_iou(evaluator: Evaluator) -> ClassIoU:
    """Have MMSegmentation's IoUMetric of an evaluator keep the IoU of every class; third parties' are left alone."""
    for metric in getattr(evaluator, 'metrics', ()):
        if type(metric) is IoUMetric:
            metric.__class__ = _ClassIoUMetric
        if isinstance(metric, _ClassIoUMetric):
            return ClassIoU(metric)
    return ClassIoU(None)
