"""Unannotated pixels are taught the class that the global model is sure of, among those that they may be."""
import torch
import torch.nn.functional as F
from torch import Tensor

from fedseg_mm.algorithms.fedavg import FedAvg
from fedseg_mm.algorithms.shrink_labels import shrink
from fedseg_mm.datasets.labels import UNANNOTATED, VOID
from fedseg_mm.registry import ALGORITHMS
from fedseg_mm.structures import ClientContext
from fedseg_mm.validation import check_integer, check_number


@ALGORITHMS.register_module()
class PseudoLabels(FedAvg):
    r"""Self-training with the received model (Lee, ICML Workshops 2013), among absent classes.

    .. math::
        L = L_{backce} - \lambda \frac{1}{|S|} \sum_{j \in S} \log q_j(\hat y_j),
        \qquad \hat y_j = \arg\max_{c \notin C_i} q^{glob}_j(c)

    with S the unannotated pixels at which the global model's probability of
    :math:`\hat y_j`, among the absent classes, reaches the threshold. The
    pixel is known to be none of the client's own classes, so none of them can
    be chosen. The global model runs in evaluation mode on the same
    augmented images; both are compared at the classifier's resolution.

    Args:
        loss_weight (float): :math:`\lambda`, at least 0; with 0 the method is
            FedAvg. Defaults to 0.5.
        threshold (float): Probability from which the global model counts as sure,
            from 0 to 1. Defaults to 0.8.
        start_round (int): First round with pseudo-labels, from 0. Defaults
            to 1.
        kwargs: Arguments of :class:`FedAvg`.

    Raises:
        FedSegError: An argument is not as described.
    """

    reads_maps = True

    def __init__(self, loss_weight: float = 0.5, threshold: float = 0.8, start_round: int = 1, **kwargs) -> None:
        super().__init__(**kwargs)
        self.loss_weight = check_number('federated.algorithm.loss_weight', loss_weight, least=0)
        self.threshold = check_number('federated.algorithm.threshold', threshold, least=0, most=1)
        self.start_round = check_integer('federated.algorithm.start_round', start_round, least=0)

    def local_loss(self, context: ClientContext) -> dict[str, Tensor]:
        if not self.loss_weight or context.broadcast.round < self.start_round:
            return {}
        received = context.frozen_model(context.received, context.images).logits.float()
        labels = shrink(context.labels, context.logits)
        annotates = context.annotates(context.logits.shape[1], labels.device)
        lowest = torch.finfo(torch.float32).min / 2
        probability, pseudo = received.masked_fill(annotates[:, None, None], lowest).softmax(1).max(1)
        sure = (labels == UNANNOTATED) & (probability >= self.threshold) & ~annotates.all()
        with torch.autocast(labels.device.type, enabled=False):
            total = F.cross_entropy(context.logits.float(), pseudo.masked_fill(~sure, VOID), ignore_index=VOID,
                                    reduction='sum')
        return dict(loss_pseudo=self.loss_weight * total / sure.sum().clamp(min=1))
