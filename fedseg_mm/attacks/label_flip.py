"""Train on wrong labels."""
from torch import Tensor

from fedseg_mm.attacks.attack import Attack
from fedseg_mm.registry import ATTACKS


@ATTACKS.register_module()
class LabelFlip(Attack):
    r"""Label flipping (Fang et al., USENIX Security 2020): class :math:`c` of :math:`C` becomes :math:`C - 1 - c`.

    The annotated classes are flipped with the labels, so that losses take
    what they are given for an honest client's.
    """

    def labels(self, labels: Tensor, num_classes: int) -> Tensor:
        return (num_classes - 1 - labels).where(labels < num_classes, labels)
