"""Labels of a real silo: its own value for "unannotated" becomes ours."""
import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS

from fedseg_mm.datasets.labels import UNANNOTATED


@TRANSFORMS.register_module()
class RemapUnannotated(BaseTransform):
    """Label 254 what the client's files label with a value of their own.

    Federated training puts it right after the labels are loaded, before any
    transform pads them with void.

    Required keys: ``gt_seg_map`` (H, W); ``unannotated_value``, the value in
    the client's labels; without it, or where it is None, nothing is done.
    """

    def transform(self, results: dict) -> dict:
        value = results.get('unannotated_value')
        if value is not None:
            label = results['gt_seg_map']
            results['gt_seg_map'] = np.where(label == value, np.uint8(UNANNOTATED), label)
        return results
