"""FedSeg: local pixels are contrasted with prototypes of the global model."""
import torch
import torch.nn.functional as F
from mmseg.models.utils import resize
from torch import Tensor, nn

from fedseg_mm.algorithms.fedavg import FedAvg
from fedseg_mm.algorithms.shrink_labels import shrink
from fedseg_mm.datasets.labels import UNANNOTATED, VOID
from fedseg_mm.errors import FedSegError, reason
from fedseg_mm.models import PixelContrastLoss, PixelFeatures, PixelMaps, ProjectionHead
from fedseg_mm.models.pixel_features import head_input_channels
from fedseg_mm.registry import ALGORITHMS
from fedseg_mm.seeding import derive_seed
from fedseg_mm.structures import ClientContext
from fedseg_mm.validation import check_integer, check_number


def image_prototypes(embeddings: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """One prototype per class and image: the mean over the class's pixels' unit vectors, of unit length.

    One matrix product over all classes; beside its arguments it holds the
    unit vectors and a one-hot map, N x h x w x num_classes values.

    Args:
        embeddings (Tensor): Vectors (N, D, h, w) of any length.
        labels (Tensor): Classes (N, h, w); other values do not count.
        num_classes (int): Number of classes C.

    Returns:
        tuple[Tensor, Tensor]: Prototypes (P, D), at least in float32, and
        their classes (P,).
    """
    embeddings = F.normalize(embeddings.to(torch.promote_types(embeddings.dtype, torch.float32)), dim=1)
    counts = labels.flatten(1).clamp(max=num_classes).long()
    members = F.one_hot(counts, num_classes + 1)[..., :num_classes].to(embeddings.dtype)
    sums = torch.einsum('npc,ndp->ncd', members, embeddings.flatten(2))
    image, cls = torch.nonzero(members.sum(1), as_tuple=True)
    return F.normalize(sums[image, cls], dim=1), cls


def mean_prototypes(prototypes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """One prototype per class: the mean of its images', of unit length."""
    classes, place = labels.unique(return_inverse=True)
    sums = prototypes.new_zeros(len(classes), prototypes.shape[1]).index_add_(0, place, prototypes)
    return F.normalize(sums, dim=1), classes


@ALGORITHMS.register_module()
class FedSeg(FedAvg):
    r"""FedSeg (Miao et al., CVPR 2023): FedAvg with local-to-global pixel contrast.

    Use it with BackCELoss in the heads; the method's loss is

    .. math::
        L = L_{backce} + \lambda_{con} (L_{con}^{annotated} + L_{con}^{pseudo})

    Before a client trains, the received global model, frozen and in
    evaluation mode, sees all of its images once, augmented as in training:
    the mean embedding of each class in each image becomes a prototype
    (:func:`image_prototypes`). A pixel's class is its annotation, or where it
    is unannotated the class that the global model is sure of. Then every
    step adds two terms of :class:`~fedseg_mm.models.PixelContrastLoss`: one
    with annotated pixels as anchors, one with all pixels whose class the global
    model is sure of, each with that class; void and padding are never among
    them. Embeddings are those of a projection head on the map
    that enters the decode head, as in the authors' network, so that the
    contrast shapes the backbone's features and leaves their decoding to the
    head; it is trained and averaged like the rest and not needed for
    inference. A head that takes several maps as they are is contrasted by the
    deepest, see :attr:`~fedseg_mm.models.PixelMaps.head_input`.

    Args:
        loss_weight (float): :math:`\lambda_{con}`, at least 0; with 0 the
            method is FedAvg. Defaults to 1.
        temperature (float): :math:`\tau`, above 0. Defaults to 0.07.
        max_anchors (int): Anchors per batch and term. Defaults to 4096.
        threshold (float): Probability from which the global model counts as sure,
            from 0 to 1. Defaults to 0.8.
        start_round (int): First round with contrast, from 0. Defaults to 1,
            which leaves out the very first.
        terms (tuple[str]): Of 'annotated' and 'pseudo', the terms to add.
            Defaults to both.
        features (str): What the projection head sits on: 'head_input', the
            map that enters the decode head, or 'classifier_input', what
            enters its classifier. Defaults to 'head_input'.
        pseudo_anchors (str): Anchors of the second term: 'all' pixels whose
            class the global model is sure of, or the 'unannotated' ones
            among them. Defaults to 'all'.
        prototypes (str): 'image', a prototype per class and image, or 'mean',
            one per class. Defaults to 'image'.
        own_pseudo_labels (bool): Whether the global model may name a class
            that the client annotates, on a pixel that it did not annotate.
            Defaults to True.
        embedding_channels (int): Dimension of the embedding. Defaults to 256.
        projection_norm_cfg (dict, optional): The projection head's norm
            layer, as MMSegmentation's ``norm_cfg``; with differential privacy
            one that gathers no statistics, such as ``dict(type='GN',
            num_groups=8)``. Defaults to None: ``dict(type='BN')``, as in the
            authors' network.
        kwargs: Arguments of :class:`FedAvg`.

    Raises:
        FedSegError: An argument is not as described, or the model's decode
            head has no classifier whose input could be contrasted.
    """

    def __init__(self, loss_weight: float = 1.0, temperature: float = 0.07, max_anchors: int = 4096,
                 threshold: float = 0.8, start_round: int = 1, terms: tuple[str, ...] = ('annotated', 'pseudo'),
                 features: str = 'head_input', pseudo_anchors: str = 'all', prototypes: str = 'image',
                 own_pseudo_labels: bool = True, embedding_channels: int = 256,
                 projection_norm_cfg: dict | None = None, **kwargs) -> None:
        super().__init__(**kwargs)
        where = 'federated.algorithm'
        self.projection_norm_cfg = projection_norm_cfg
        self.loss_weight = check_number(f'{where}.loss_weight', loss_weight, least=0)
        self.threshold = check_number(f'{where}.threshold', threshold, least=0, most=1)
        self.start_round = check_integer(f'{where}.start_round', start_round, least=0)
        self.embedding_channels = check_integer(f'{where}.embedding_channels', embedding_channels, least=1)
        for name, value, known in (('features', features, ('head_input', 'classifier_input')),
                                   ('pseudo_anchors', pseudo_anchors, ('all', 'unannotated')),
                                   ('prototypes', prototypes, ('image', 'mean'))):
            if value not in known:
                raise FedSegError(f'{where}.{name} must be {known[0]!r} or {known[1]!r}, but is {value!r}')
        if not isinstance(terms, (list, tuple)) or not terms or any(
                term not in ('annotated', 'pseudo') for term in terms):
            raise FedSegError(f"{where}.terms must be a list of 'annotated' and 'pseudo', but is {terms!r}")
        if not isinstance(own_pseudo_labels, bool):
            raise FedSegError(f'{where}.own_pseudo_labels must be True or False, but is {own_pseudo_labels!r}')
        self.terms = tuple(terms)
        self.features = features
        self.pseudo_anchors = pseudo_anchors
        self.prototypes = prototypes
        self.own_pseudo_labels = own_pseudo_labels
        self.contrast = PixelContrastLoss(
            check_number(f'{where}.temperature', temperature, above=0),
            check_integer(f'{where}.max_anchors', max_anchors, least=1), self.loss_weight)

    def setup_model(self, model: nn.Module) -> None:
        if self.loss_weight:
            features, parameter = PixelFeatures(model), next(model.parameters())
            if features.num_logits != self.federation.num_classes:
                raise FedSegError(f'{type(features.head).__name__} has {features.num_logits} logits for '
                                  f'{self.federation.num_classes} classes, but FedSeg needs one per class')
            seed = derive_seed(self.federation.seed, 'projection head')
            channels = (features.channels if self.features == 'classifier_input' else
                        head_input_channels(features.head))
            try:
                projection = ProjectionHead(channels, self.embedding_channels, seed, self.projection_norm_cfg)
            except (KeyError, TypeError, ValueError, AssertionError) as error:
                raise FedSegError(f'federated.algorithm.projection_norm_cfg={self.projection_norm_cfg!r} cannot '
                                  f'make a norm layer for {channels} channels: {reason(error)}') from error
            model.projection_head = projection.to(parameter.device)

    def surveys(self, round: int) -> bool:
        return self.loss_weight > 0 and round >= self.start_round

    def setup_client(self, context: ClientContext) -> None:
        """Make the client's prototypes with the received global model."""
        if not self.surveys(context.broadcast.round):
            return
        found = [self._prototypes_of(context, images, labels) for images, labels in context.survey()]
        prototypes, labels = (torch.cat(tensors) for tensors in zip(*found))
        if self.prototypes == 'mean':
            prototypes, labels = mean_prototypes(prototypes, labels)
        context.memory['prototypes'] = prototypes, labels

    def _prototypes_of(self, context: ClientContext, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        weights = context.received
        maps = context.frozen_model(weights, images)
        embeddings = context.frozen_model.part('projection_head', weights, self.projected(maps))
        labels = shrink(labels, embeddings)
        pseudo = self.pseudo_labels(context, labels, maps.logits)
        labels = torch.where(labels == UNANNOTATED, pseudo, labels)
        with torch.autocast(embeddings.device.type, enabled=False):
            return image_prototypes(embeddings, labels, self.federation.num_classes)

    def projected(self, maps: PixelMaps) -> Tensor:
        """What the projection head sits on."""
        return maps.embeddings if self.features == 'classifier_input' else maps.head_input

    def pseudo_labels(self, context: ClientContext, labels: Tensor, logits: Tensor) -> Tensor:
        """The frozen model's classes of all pixels that are not void, where it is sure; elsewhere void.

        Args:
            context (ClientContext): The client.
            labels (Tensor): Its labels (N, h, w).
            logits (Tensor): The frozen model's, (N, C, ...), of any size.

        Returns:
            Tensor: Classes (N, h, w), or 255.
        """
        if logits.shape[-2:] != labels.shape[-2:]:
            logits = resize(logits, labels.shape[-2:], mode='bilinear', align_corners=False)
        probability, cls = logits.float().softmax(1).max(1)
        sure = (labels != VOID) & (probability >= self.threshold)
        if not self.own_pseudo_labels:
            sure &= ~(context.annotates(self.federation.num_classes, cls.device)[cls] & (labels == UNANNOTATED))
        return cls.to(labels.dtype).masked_fill(~sure, VOID)

    def local_loss(self, context: ClientContext) -> dict[str, Tensor]:
        if 'prototypes' not in context.memory:
            return {}
        embeddings = context.model.get_submodule('projection_head')(self.projected(context.maps))
        labels = shrink(context.labels, embeddings)
        losses = {}
        if 'annotated' in self.terms:
            losses['loss_contrast'] = self.contrast(embeddings, labels, *context.memory['prototypes'])
        if 'pseudo' in self.terms:
            logits = context.frozen_model(context.received, context.images).logits
            pseudo = self.pseudo_labels(context, labels, logits)
            if self.pseudo_anchors == 'unannotated':
                pseudo = pseudo.masked_fill(labels != UNANNOTATED, VOID)
            losses['loss_contrast_pseudo'] = self.contrast(embeddings, pseudo, *context.memory['prototypes'])
        return losses
