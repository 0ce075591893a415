"""FedSeg's contrastive loss between a local model's pixels and the global model's prototypes."""
import torch
import torch.nn as nn
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor


def pixel_contrast(anchors: Tensor, labels: Tensor, prototypes: Tensor, prototype_labels: Tensor,
                   temperature: float) -> Tensor:
    r"""Contrast of every anchor (FedSeg, Miao et al., CVPR 2023, :math:`L_{con}`).

    .. math::
        \ell(a) = -\frac{1}{|P(a)|} \sum_{p \in P(a)} \log
        \frac{e^{a \cdot p / \tau}}{e^{a \cdot p / \tau} + \sum_{n \in N(a)} e^{a \cdot n / \tau}}

    with :math:`P(a)` the prototypes of the anchor's class and :math:`N(a)`
    the others.

    Args:
        anchors (Tensor): Unit vectors (A, D).
        labels (Tensor): Their classes (A,); each has a prototype.
        prototypes (Tensor): Unit vectors (P, D).
        prototype_labels (Tensor): Their classes (P,).
        temperature (float): :math:`\tau`.

    Returns:
        Tensor: The loss of every anchor (A,).
    """
    similarity = anchors @ prototypes.T / temperature
    positive = labels[:, None] == prototype_labels[None]
    # finite, so that no NaN arises where there are no negatives
    lowest = torch.finfo(similarity.dtype).min / 2
    negatives = similarity.masked_fill(positive, lowest).logsumexp(1, keepdim=True)
    # -log(e^s / (e^s + e^n)) = softplus(n - s)
    loss = F.softplus(negatives - similarity).masked_fill(~positive, 0)
    return loss.sum(1) / positive.sum(1)


def draw_evenly(labels: Tensor, num_classes: int, most: int) -> Tensor:
    """Draw indices at random, as many of one class as of the other, as far as there are.

    Args:
        labels (Tensor): Classes (A,), from 0 to ``num_classes - 1``.
        num_classes (int): Number of classes.
        most (int): Indices to draw at most; each class that is there gets
            an equal share of it, but at least one.

    Returns:
        Tensor: Indices into ``labels``.
    """
    shuffled = torch.randperm(len(labels), device=labels.device)
    by_class, order = labels[shuffled].sort(stable=True)
    count = torch.bincount(labels, minlength=num_classes)
    first = count.cumsum(0) - count
    rank = torch.arange(len(labels), device=labels.device) - first[by_class]
    share = (most // (count > 0).sum().clamp(min=1)).clamp(min=1)
    return shuffled[order[rank < share]]


@MODELS.register_module()
class PixelContrastLoss(nn.Module):
    """Pulls pixel embeddings towards the prototypes of their class and away from the others.

    See :func:`pixel_contrast` for the equation. Anchors are the pixels whose
    class has a prototype, at most ``max_anchors`` per batch, split evenly
    over the classes present and drawn at random. Both sides are normalised
    and compared at least in float32, also under autocast.

    Args:
        temperature (float): :math:`\\tau`. Defaults to 0.07.
        max_anchors (int): Anchors per batch. Defaults to 4096.
        loss_weight (float): :math:`\\lambda_{con}`. Defaults to 1.0.

    Raises:
        ValueError: The temperature or the number of anchors is not positive.
    """

    def __init__(self, temperature: float = 0.07, max_anchors: int = 4096, loss_weight: float = 1.0) -> None:
        super().__init__()
        if not temperature > 0 or max_anchors < 1:
            raise ValueError(f'temperature={temperature} and max_anchors={max_anchors} must be positive')
        self.temperature = temperature
        self.max_anchors = max_anchors
        self.loss_weight = loss_weight

    def forward(self, embeddings: Tensor, labels: Tensor, prototypes: Tensor, prototype_labels: Tensor) -> Tensor:
        """Forward function.

        Args:
            embeddings (Tensor): Pixel embeddings (N, D, h, w).
            labels (Tensor): Classes (N, h, w); any value that no prototype
                has (254, 255, …) is no anchor.
            prototypes (Tensor): Shape (P, D).
            prototype_labels (Tensor): Their classes (P,).

        Returns:
            Tensor: The mean over the anchors, a scalar; where there is no
            anchor, a zero that can be differentiated.
        """
        with torch.autocast(embeddings.device.type, enabled=False):
            dtype = torch.promote_types(embeddings.dtype, torch.float32)
            classes, prototype_classes = prototype_labels.unique(return_inverse=True)
            labels = labels.to(classes.dtype)
            image, row, column = torch.nonzero(torch.isin(labels, classes), as_tuple=True)
            if not len(image):
                return embeddings.flatten()[:0].to(dtype).sum()
            anchor_classes = torch.searchsorted(classes, labels[image, row, column])
            chosen = draw_evenly(anchor_classes, len(classes), self.max_anchors)
            # indexed before anything is permuted or converted: no copy of all pixels
            anchors = embeddings[image[chosen], :, row[chosen], column[chosen]].to(dtype)
            loss = pixel_contrast(
                F.normalize(anchors, dim=1), anchor_classes[chosen], F.normalize(prototypes.to(dtype), dim=1),
                prototype_classes, self.temperature)
            return self.loss_weight * loss.mean()
