"""Labels as a client sees them: other classes' pixels are unannotated."""
import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS

from fedseg_mm.datasets.labels import UNANNOTATED, VOID
from fedseg_mm.errors import FedSegError


@TRANSFORMS.register_module()
class MaskToClient(BaseTransform):
    """Label every pixel outside the client's annotated classes as unannotated (254).

    Void (255) stays void. Federated training puts it right before the packing
    transform, so that crops do not depend on what the client annotates.

    Required keys: ``gt_seg_map`` (H, W); ``annotated_classes``, a sequence of
    class indices. Optional: ``relabelled_classes``, which class a hostile
    client labels each class as, before anything is masked.

    Args:
        required (bool): Whether ``annotated_classes`` must be there, as it is
            in federated training; otherwise nothing is masked without it.
            Defaults to False.
    """

    def __init__(self, required: bool = False) -> None:
        self.required = required

    def transform(self, results: dict) -> dict:
        classes = results.get('annotated_classes')
        if classes is None and self.required:
            raise FedSegError('a transform of the train pipeline dropped `annotated_classes`, so the label cannot '
                              'be masked to its client')
        if classes is not None:
            client_label = np.full(256, UNANNOTATED, np.uint8)
            client_label[list(classes)] = classes
            client_label[VOID] = VOID
            if (relabelled := results.get('relabelled_classes')) is not None:
                client_label[:len(relabelled)] = client_label[list(relabelled)]
            results['gt_seg_map'] = client_label[results['gt_seg_map']]
        return results
