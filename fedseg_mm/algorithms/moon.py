"""MOON: the local model's view of an image is pulled to the global model's and away from its own last one."""
import torch
import torch.nn.functional as F
from torch import Tensor

from fedseg_mm.algorithms.fedavg import FedAvg
from fedseg_mm.registry import ALGORITHMS
from fedseg_mm.structures import ClientContext
from fedseg_mm.validation import check_number


@ALGORITHMS.register_module()
class MOON(FedAvg):
    r"""Model-contrastive federated learning (Li et al., CVPR 2021, equation 3).

    .. math::
        \ell_{con} = -\log \frac{e^{\mathrm{sim}(z, z_{glob}) / \tau}}
        {e^{\mathrm{sim}(z, z_{glob}) / \tau} + e^{\mathrm{sim}(z, z_{prev}) / \tau}}

    MOON contrasts one vector per image. For dense prediction, z is the mean
    over all pixels of what enters the classifier: each pixel's class is
    decided from its embedding, so the mean describes the whole image as
    MOON's penultimate layer does; no layer is added, and the model is the
    one that the other methods train.

    The previous model of a client, kept on disk, is the one that it sent
    last; before that there is nothing to contrast with, and the term, whose
    gradient would be zero, is left out. Global and previous model run
    in evaluation mode.

    Args:
        mu (float): Factor :math:`\mu` of the term, at least 0. Defaults to 1.
        temperature (float): :math:`\tau`, above 0. Defaults to 0.5.
        kwargs: Arguments of :class:`FedAvg`.
    """

    reads_maps = True

    def __init__(self, mu: float = 1.0, temperature: float = 0.5, **kwargs) -> None:
        super().__init__(**kwargs)
        self.mu = check_number('federated.algorithm.mu', mu, least=0)
        self.temperature = check_number('federated.algorithm.temperature', temperature, above=0)

    def local_loss(self, context: ClientContext) -> dict[str, Tensor]:
        if not context.state or not self.mu:
            return {}
        here = context.embeddings.mean((2, 3), dtype=torch.float32)
        similarities = []
        for weights in (context.received, context.state):
            there = context.frozen_model(weights, context.images).embeddings
            similarities.append(F.cosine_similarity(here, there.mean((2, 3), dtype=torch.float32)))
        similarity = torch.stack(similarities, 1) / self.temperature
        return dict(loss_moon=self.mu * F.cross_entropy(similarity, similarity.new_zeros(len(here), dtype=torch.long)))

    def finish_client(self, context: ClientContext) -> dict[str, Tensor]:
        if self.mu:
            context.state = dict(context.model.state_dict())
        return {}
