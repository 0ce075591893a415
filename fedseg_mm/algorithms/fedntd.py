"""FedNTD: about the classes that labels leave open, the local model keeps the global model's predictions."""
import torch
import torch.nn.functional as F
from torch import Tensor

from fedseg_mm.algorithms.fedavg import FedAvg
from fedseg_mm.algorithms.shrink_labels import shrink
from fedseg_mm.datasets.labels import UNANNOTATED, VOID
from fedseg_mm.errors import FedSegError
from fedseg_mm.registry import ALGORITHMS
from fedseg_mm.structures import ClientContext
from fedseg_mm.validation import check_number


def not_true_classes(labels: Tensor, annotates: Tensor) -> Tensor:
    """The classes of every pixel between which its label does not decide.

    For an annotated pixel, all but its own class, as in FedNTD; for an
    unannotated one, the classes that the client does not annotate: its label
    says that it is one of these, but not which.

    Args:
        labels (Tensor): Labels (N, h, w): classes, 254 unannotated, 255 void.
        annotates (Tensor): Which classes the client annotates, bool (C,).

    Returns:
        Tensor: bool (N, C, h, w).
    """
    classes = torch.arange(len(annotates), device=labels.device)[:, None, None]
    others = labels[:, None] != classes
    return torch.where((labels == UNANNOTATED)[:, None], ~annotates[:, None, None], others)


@ALGORITHMS.register_module()
class FedNTD(FedAvg):
    r"""Not-true distillation (Lee et al., NeurIPS 2022, equations 5 and 6), pixel by pixel.

    .. math::
        L = L_{backce} + \beta\, \frac{1}{|P|} \sum_{j \in P}
        \mathrm{KL}\big(\tilde q^{glob}_j \,\|\, \tilde q_j\big),
        \qquad \tilde q_j(c) = \frac{e^{z_c / \tau}}{\sum_{k \in N_j} e^{z_k / \tau}}
        \quad (c \in N_j)

    with :math:`N_j` the not-true classes of a pixel
    (:func:`not_true_classes`). BackCE leaves free how an unannotated pixel's
    probability is divided among the absent classes, and a client's few steps
    then forget what other clients taught; this term preserves it. The global
    model runs in evaluation mode on the same augmented images; both are
    compared at the classifier's resolution.

    Args:
        beta (float): Factor :math:`\beta` of the term, at least 0; with 0 the
            method is FedAvg. Defaults to 1.
        temperature (float): :math:`\tau`, above 0. Defaults to 1.
        pixels (str): 'all' that are not void, or the 'unannotated' ones.
            Defaults to 'all'.
        kwargs: Arguments of :class:`FedAvg`.

    Raises:
        FedSegError: An argument is not as described.
    """

    reads_maps = True

    def __init__(self, beta: float = 1.0, temperature: float = 1.0, pixels: str = 'all', **kwargs) -> None:
        super().__init__(**kwargs)
        self.beta = check_number('federated.algorithm.beta', beta, least=0)
        self.temperature = check_number('federated.algorithm.temperature', temperature, above=0)
        if pixels not in ('all', 'unannotated'):
            raise FedSegError(f"federated.algorithm.pixels must be 'all' or 'unannotated', but is {pixels!r}")
        self.pixels = pixels

    def local_loss(self, context: ClientContext) -> dict[str, Tensor]:
        if not self.beta:
            return {}
        received = context.frozen_model(context.received, context.images).logits
        labels = shrink(context.labels, context.logits)
        annotates = context.annotates(context.logits.shape[1], labels.device)
        with torch.autocast(labels.device.type, enabled=False):
            excluded = ~not_true_classes(labels, annotates)
            # finite, so that no NaN arises where the client annotates all classes
            lowest = torch.finfo(torch.float32).min / 2
            here, there = ((logits.float() / self.temperature).masked_fill(excluded, lowest).log_softmax(1)
                           for logits in (context.logits, received))
            divergence = F.kl_div(here, there, reduction='none', log_target=True).sum(1)
            counted = labels == UNANNOTATED if self.pixels == 'unannotated' else labels != VOID
            counted &= ~excluded.all(1)
            total = divergence.masked_fill(~counted, 0).sum()
            return dict(loss_not_true=self.beta * total / counted.sum().clamp(min=1))
