"""Compares the gradient of each of a client's loss terms with that under full annotation."""
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedseg_mm.algorithms import FedSeg
from fedseg_mm.algorithms.fedavg import load_weights
from fedseg_mm.algorithms.shrink_labels import shrink
from fedseg_mm.datasets import UNANNOTATED, ClientShard, Pass
from fedseg_mm.engine.local_trainer import LocalTrainer
from fedseg_mm.errors import FedSegError
from fedseg_mm.models import PixelFeatures, PixelMaps, hide_unannotated_pixels
from fedseg_mm.structures import Broadcast, ClientContext

#: The gradient of the model's own losses, were all pixels annotated.
ALL_LABELS = 'all labels'


def cosine(one: Tensor, other: Tensor) -> float:
    """The cosine of the angle between two vectors; 0 if one of them is zero."""
    return F.cosine_similarity(one.double(), other.double(), dim=0).item()


@dataclass
class ClientGradients:
    """The mean gradients of one client, at the weights received; by term, and of :data:`ALL_LABELS`.

    Args:
        client (int): The client's id.
        classes (tuple[int]): Its annotated classes.
        losses (dict[str, float]): The means of the terms.
        norms (dict[str, float]): The lengths of their mean gradients.
        cosines (dict[str, float]): Their cosines with that of all labels.
        unannotated (int): Unannotated pixels, at the classifier's resolution.
        pseudo_labelled (int): Those of them that FedSeg labels.
        right (int): Those of these whose label is the hidden one.
    """
    client: int
    classes: tuple[int, ...]
    losses: dict[str, float] = field(default_factory=dict)
    norms: dict[str, float] = field(default_factory=dict)
    cosines: dict[str, float] = field(default_factory=dict)
    unannotated: int = 0
    pseudo_labelled: int = 0
    right: int = 0


class GradientComparison:
    """Compares the loss terms of clients, step by step as in training, but without a step.

    The gradients are those with respect to the weights that make the
    classifier's input, or what FedSeg contrasts if that is earlier: all terms
    of all methods reach these.

    Args:
        trainer (LocalTrainer): Trains the clients.
        num_classes (int): Classes of the data set.

    Raises:
        FedSegError: A client's label files name only its own classes, or the
            model does not classify by a convolution.
    """

    def __init__(self, trainer: LocalTrainer, num_classes: int) -> None:
        self.trainer = trainer
        self.num_classes = num_classes
        #: By term, the sum of all clients' gradients so far, as one vector.
        self.sums: dict[str, Tensor] = {}
        self._features = PixelFeatures(trainer.model)
        self._shared: list[nn.Parameter] = []
        for client, shard in enumerate(trainer.stream.batch_sampler.shards):
            if any(unannotated is not None for _, _, unannotated in shard.images()):
                raise FedSegError(f'the label files of client {client} name only its own classes, so there are '
                                  'no labels to compare with: take a data set with whole labels')

    def of_client(self, client: int, broadcast: Broadcast, most: int) -> ClientGradients:
        """The gradients of one client's first batches in a round.

        Args:
            client (int): The client's id.
            broadcast (Broadcast): What the server sent.
            most (int): Batches at most.
        """
        wanted = Pass(broadcast.round, client)
        context = self.trainer.begin(client, broadcast)
        found = ClientGradients(client, context.classes)
        batches = list(islice(self.trainer.stream.batches(wanted), most))
        with self._all_labels(client):
            whole = list(islice(self.trainer.stream.batches(wanted), most))
        gradients: dict[str, Tensor] = {}
        for batch, whole_batch in zip(batches, whole):
            for name, (loss, gradient) in self._of_batch(found, context, batch, whole_batch).items():
                found.losses[name] = found.losses.get(name, 0.0) + loss / len(batches)
                gradients[name] = gradients.get(name, torch.zeros_like(gradient)) + gradient / len(batches)
        for name, gradient in gradients.items():
            found.norms[name] = gradient.norm().item()
            found.cosines[name] = cosine(gradient, gradients[ALL_LABELS])
            self.sums[name] = self.sums.get(name, torch.zeros_like(gradient)) + gradient
        return found

    @contextmanager
    def _all_labels(self, client: int) -> Iterator[None]:
        """Let the client annotate all classes."""
        sampler = self.trainer.stream.batch_sampler
        shards = sampler.shards
        whole = ClientShard(shards[client].indices, tuple(range(self.num_classes)))
        sampler.shards = [*shards[:client], whole, *shards[client + 1:]]
        try:
            yield
        finally:
            sampler.shards = shards

    def _of_batch(self, found: ClientGradients, context: ClientContext, batch: dict,
                  whole: dict) -> dict[str, tuple[float, Tensor]]:
        """Every term's value and gradient."""
        model, trainer = self.trainer.model, self.trainer
        data, whole = model.data_preprocessor(batch, True), model.data_preprocessor(whole, True)
        labels, truth = (torch.cat([sample.gt_sem_seg.data for sample in one['data_samples']])
                         for one in (data, whole))
        self._count(found, context, data['inputs'], labels, truth)

        load_weights(model, context.received)
        model.train()
        with self._features.caught(), trainer.method_in_step(context):
            losses = model(**data, mode='loss')
            maps = self._features.take()
        if not self._shared:
            weights = [weight for weight in model.parameters() if weight.requires_grad]
            reached = torch.autograd.grad(self._compared(maps).sum(), weights, retain_graph=True, allow_unused=True)
            self._shared = [weight for weight, gradient in zip(weights, reached) if gradient is not None]
        _, terms = model.parse_losses(losses)
        found_terms = {name: (term.item(), self._gradient(term)) for name, term in terms.items()
                       if 'loss' in name and name != 'loss'}  # without the accuracy and the sum

        load_weights(model, context.received)
        handle = hide_unannotated_pixels(model)
        try:
            term, _ = model.parse_losses(model(**whole, mode='loss'))
        finally:
            handle.remove()
        return {**found_terms, ALL_LABELS: (term.item(), self._gradient(term))}

    def _compared(self, maps: PixelMaps) -> Tensor:
        algorithm = self.trainer.algorithm
        return algorithm.projected(maps) if isinstance(algorithm, FedSeg) else maps.embeddings

    def _gradient(self, term: Tensor) -> Tensor:
        gradients = torch.autograd.grad(term, self._shared, retain_graph=True, allow_unused=True)
        return torch.cat([(torch.zeros_like(weight) if gradient is None else gradient).flatten()
                          for weight, gradient in zip(self._shared, gradients)])

    def _count(self, found: ClientGradients, context: ClientContext, images: Tensor, labels: Tensor,
               truth: Tensor) -> None:
        """How many unannotated pixels FedSeg labels, and how many of them rightly."""
        algorithm = self.trainer.algorithm
        if not isinstance(algorithm, FedSeg) or not algorithm.surveys(context.broadcast.round):
            return
        logits = self.trainer.frozen_model(context.received, images).logits
        labels, truth = shrink(labels, logits), shrink(truth, logits)
        pseudo = algorithm.pseudo_labels(context, labels, logits)
        labelled = (pseudo < self.num_classes) & (labels == UNANNOTATED)
        found.unannotated += int((labels == UNANNOTATED).sum())
        found.pseudo_labelled += int(labelled.sum())
        found.right += int((labelled & (pseudo == truth)).sum())
