"""FedSeg's contrastive loss between a local model's pixels and the global model's prototypes."""
import torch
import torch.nn as nn
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor
from torch.utils.checkpoint import checkpoint

#: Labels are bytes.
NUM_LABELS = 256
#: Anchor-prototype pairs that are held at a time; with more, blocks of anchors are computed anew in the backward pass.
SIMILARITIES = 2**24
#: Length of a vector that has a direction.
SHORTEST = 1e-12


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
        labels (Tensor): Their classes (A,); one without a prototype has the
            loss 0.
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
    return loss.sum(1) / positive.sum(1).clamp(min=1)


def unit_vectors(vectors: Tensor) -> Tensor:
    """Vectors (A, D) of length 1; one below :data:`SHORTEST`, where the slope would be endless, stays as it is."""
    length = vectors.norm(dim=1, keepdim=True)
    return vectors / length.masked_fill(length < SHORTEST, 1)


def contrast_in_blocks(anchors: Tensor, labels: Tensor, prototypes: Tensor, prototype_labels: Tensor,
                       temperature: float) -> Tensor:
    """:func:`pixel_contrast` in bounded memory, however many prototypes there are."""
    size = max(1, SIMILARITIES // len(prototypes))
    if len(anchors) <= size:
        return pixel_contrast(anchors, labels, prototypes, prototype_labels, temperature)
    return torch.cat([
        checkpoint(pixel_contrast, some, some_labels, prototypes, prototype_labels, temperature, use_reentrant=False,
                   preserve_rng_state=False)
        for some, some_labels in zip(anchors.split(size), labels.split(size))])


def draw_evenly(labels: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Draw indices at random, as many of one class as of the other, as far as there are.

    The number of classes and of indices stays on the device: the host does
    not wait for it.

    Args:
        labels (Tensor): Classes (A,), from 0 to 255; 256 is not drawn.
        most (int): Indices to draw at most; each class that is there gets
            an equal share of it, but at least one.

    Returns:
        tuple[Tensor, Tensor]: Indices into ``labels``, as many as there can
        be, and which of them are drawn, bool; the others are to be ignored.
    """
    shuffled = torch.randperm(len(labels), device=labels.device)
    by_class, order = labels[shuffled].sort(stable=True)
    edges = torch.searchsorted(by_class, torch.arange(NUM_LABELS + 1, device=labels.device))
    share = (most // (edges.diff() > 0).sum().clamp(min=1)).clamp(min=1)
    rank = torch.arange(len(labels), device=labels.device) - edges[by_class]
    drawn = (rank < share) & (by_class < NUM_LABELS)
    # those drawn move to the front; the others all to one place behind the end
    number = min(len(labels), max(most, NUM_LABELS))
    place = torch.where(drawn, drawn.cumsum(0) - 1, number)
    indices = F.pad(shuffled[:number], (0, 1)).scatter_(0, place, shuffled[order])[:number]
    return indices, torch.arange(number, device=labels.device) < drawn.sum()


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
            if not len(prototypes):
                return embeddings.flatten()[:0].to(dtype).sum()
            labels, prototype_labels = labels.flatten(1).long(), prototype_labels.long()
            has_prototype = torch.zeros(NUM_LABELS, dtype=torch.bool, device=labels.device)
            has_prototype.index_fill_(0, prototype_labels, True)
            labels = labels.where(has_prototype[labels], NUM_LABELS).flatten()
            chosen, drawn = draw_evenly(labels, self.max_anchors)
            # indexed before anything is permuted or converted: no copy of all pixels
            pixels = embeddings[0, 0].numel()
            anchors = embeddings.flatten(2)[chosen // pixels, :, chosen % pixels].to(dtype)
            anchors = anchors.masked_fill(~drawn[:, None], 0)
            loss = contrast_in_blocks(
                unit_vectors(anchors), labels[chosen], unit_vectors(prototypes.to(dtype)),
                prototype_labels, self.temperature)
            return self.loss_weight * loss.where(drawn, 0).sum() / drawn.sum().clamp(min=1)
