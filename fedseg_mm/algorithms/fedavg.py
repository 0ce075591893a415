"""FedAvg, and the seams that every other method is built from."""
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fedseg_mm.aggregators import Aggregator, WeightedMean
from fedseg_mm.algorithms.batch_norm_policy import BatchNormPolicy
from fedseg_mm.datasets.partition import ClientShard, Partition
from fedseg_mm.errors import FedSegError
from fedseg_mm.processors import ProcessorPipeline
from fedseg_mm.registry import ALGORITHMS, BATCH_NORM_POLICIES
from fedseg_mm.structures import Broadcast, ClientContext, ClientUpdate, FederationInfo
from fedseg_mm.structures.messages import check_fits


@ALGORITHMS.register_module()
class FedAvg:
    r"""FederatedAveraging (McMahan et al., AISTATS 2017, algorithm 1).

    .. math::
        w_{t+1} = \sum_{k \in S_t} \frac{n_k}{n} w^k_{t+1},
        \qquad n = \sum_{k \in S_t} n_k

    with :math:`n_k` the number of images of client k and :math:`S_t` the
    cohort. Normalisation statistics are averaged like weights, as FedSeg does.

    A method overrides the smallest step that it changes.

    Args:
        batch_norm (str): 'average'; 'local_statistics', which clients keep;
            'local', whose whole layers clients keep; or 'recalibrate', the
            statistics computed anew after every round, over the cohort's
            images. Defaults to 'average'.
        weighting (str): What an update counts: 'images', as many as the
            client has, or 'equal', every update alike. Defaults to 'images'.

    Raises:
        FedSegError: An argument is none of these.
    """

    #: The validation loop that the method needs, if not the config's.
    val_loop: str | None = None
    #: The federation, known from setup on.
    federation: FederationInfo
    #: Whether all clients' images are in one place: it is a bound, and nothing is sent.
    pools_clients = False
    #: Whether it is a bound that a federation is compared with: no update is sent.
    is_bound = False
    #: Whether it keeps state for each trainable parameter, from the start.
    keeps_state = False
    #: Whether it works on what the model's classifier takes and gives (``context.maps``).
    reads_maps = False

    def __init__(self, batch_norm: str = 'average', weighting: str = 'images') -> None:
        if not isinstance(batch_norm, str) or batch_norm not in BATCH_NORM_POLICIES:
            raise FedSegError('federated.algorithm.batch_norm must be one of '
                              f'{", ".join(BATCH_NORM_POLICIES.module_dict)}, but is {batch_norm!r}')
        self.batch_norm: BatchNormPolicy = BATCH_NORM_POLICIES.get(batch_norm)()
        if weighting not in ('images', 'equal'):
            raise FedSegError(f"federated.algorithm.weighting must be 'images' or 'equal', but is {weighting!r}")
        self.weighting = weighting
        self.aggregator: Aggregator = WeightedMean()
        self.processors = ProcessorPipeline()
        #: The global model, shared and unshared weights alike.
        self.weights: dict[str, Tensor] = {}
        #: Names of the shared trainable parameters.
        self.trained: list[str] = []
        #: Names of the shared weights that update processors work on: trainable ones, and floating point buffers.
        self.processed: list[str] = []
        #: Names of the parameters and buffers that clients keep to themselves.
        self.unshared: list[str] = []
        self._unshared_mean = WeightedMean()
        self.round = 0

    # --- before training ----------------------------------------------------
    def setup(self, model: nn.Module, federation: FederationInfo) -> None:
        """Take note of the federation and set the model up, before the optimizer is built."""
        self.federation = federation
        self.aggregator = federation.make_aggregator()
        self.processors = federation.processors
        self.setup_model(model)

    def shards(self, partition: Partition) -> tuple[ClientShard, ...]:
        """Who trains on what: the clients of the partition, unless a bound pools them."""
        return partition.clients

    def setup_model(self, model: nn.Module) -> None:
        """Add what the method needs to the model, before the optimizer is built."""

    def start(self, model: nn.Module) -> None:
        """Take the model's weights, initial or resumed, as the global model."""
        self.weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        self.unshared = self.own_names(model)
        self._note_trained(model)

    def _note_trained(self, model: nn.Module) -> None:
        own = set(self.unshared)
        self.trained = [name for name, parameter in model.named_parameters()
                        if parameter.requires_grad and name not in own]
        frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
        self.processed = [name for name, tensor in self.shared_weights.items()
                          if tensor.is_floating_point() and name not in frozen]

    def follow(self, model: nn.Module) -> None:
        """Notice, before a round, which parameters a hook has frozen or thawed since.

        Raises:
            FedSegError: A parameter is trainable now for which the method keeps
                no state.
        """
        before = set(self.trained)
        self._note_trained(model)
        if self.keeps_state and (thawed := [name for name in self.trained if name not in before]):
            raise FedSegError(f'{thawed[0]} and {len(thawed) - 1} other parameters were frozen when training '
                              f'began and are trainable now, but {type(self).__name__} keeps state only for what was '
                              'trainable then: make them trainable from the start, or end the training here and '
                              'start another from its checkpoint with load_from')

    def warnings(self, optimizer: torch.optim.Optimizer, model: nn.Module) -> list[str]:
        """Warnings about the method with this optimizer and model, one sentence each, before the first round."""
        if self.batch_norm.changes_nothing_without_layers and not any(
                isinstance(module, _BatchNorm) for module in model.modules()):
            return [f'{type(self).__name__} treats batch normalisation specially, but the model has none: '
                    "the run is the same as with batch_norm='average'."]
        return []

    @property
    def sends_extras(self) -> bool:
        """Whether a second quantity goes up beside the weights."""
        return any(getattr(type(self), name) is not getattr(FedAvg, name) for name in ('receive', 'broadcast_extras'))

    def extras_like(self, broadcast: Broadcast) -> Mapping[str, Tensor] | None:
        """What an update's extras must be like, for those that come from elsewhere; None where any will do."""
        return None if self.sends_extras else {}

    @property
    def remedy(self) -> str:
        """Advice for the message when no update is finite."""
        return 'lower the learning rate or clip gradients (optim_wrapper.clip_grad)'

    @property
    def shared_weights(self) -> dict[str, Tensor]:
        """The part of the global model that goes down and comes back."""
        return _without(self.weights, self.unshared)

    # --- at the client ------------------------------------------------------
    def is_shared(self, name: str, module: nn.Module) -> bool:
        """Whether a tensor follows the global model, or stays with the client from round to round.

        Args:
            name (str): Name of the parameter or buffer in its module.
            module (nn.Module): The module that owns it.
        """
        return self.batch_norm.is_shared(name, module)

    def own_names(self, model: nn.Module) -> list[str]:
        """Names of the parameters and buffers that are not shared."""
        return [f'{prefix}.{name}' if prefix else name for prefix, module in model.named_modules()
                for name in _names_of(module) if not self.is_shared(name, module)]

    def surveys(self, round: int) -> bool:
        """Whether clients look at all their images before training (``context.survey``)."""
        return False

    def setup_client(self, context: ClientContext) -> None:
        """Prepare a client, after it was given the broadcast and before its first step."""

    def local_loss(self, context: ClientContext) -> dict[str, Tensor]:
        """Terms that join the losses of a step, by name; those with 'loss' in it are optimised."""
        return {}

    def adjust_gradients(self, context: ClientContext) -> None:
        """Change the gradients in place (``context.gradients()``), after clipping and before the optimizer's step."""

    def finish_client(self, context: ClientContext) -> dict[str, Tensor]:
        """What goes up beside the weights; the place to renew ``context.state``."""
        return {}

    # --- at the server ------------------------------------------------------
    def broadcast(self, round: int, hyperparameters: Sequence[Mapping[str, float]] = ()) -> Broadcast:
        """The broadcast that every client of the cohort receives.

        Args:
            round (int): The round, from 0.
            hyperparameters (Sequence[Mapping[str, float]]): What the
                optimizer's parameter groups are set to.
        """
        return Broadcast(round, self.shared_weights, self.broadcast_extras(),
                         {name: self.weights[name] for name in self.unshared}, hyperparameters)

    def broadcast_extras(self) -> Mapping[str, Tensor]:
        """What goes down beside the weights."""
        return {}

    def begin_round(self, round: int) -> None:
        """Make the aggregator ready for the updates of a round."""
        self.round = round
        self.aggregator.begin(self.shared_weights, self.trained)

    def receive(self, update: ClientUpdate) -> None:
        """Give a client's update to the aggregator."""
        update = self.restore(update)
        weight = self.update_weight(update)
        self.aggregator.add(update.weights, weight)
        if update.unshared:
            self._unshared_mean.add(update.unshared, weight)

    def discard_round(self) -> None:
        """Discard the updates of a failed round."""
        self.aggregator.discard()
        self._unshared_mean.discard()

    def update_weight(self, update: ClientUpdate) -> float:
        """The update's weight in the mean: :math:`n_k`, or 1 with equal weighting."""
        return update.num_images if self.weighting == 'images' else 1.0

    def all_reduce(self) -> None:
        """Join what the processes of a client-parallel run have received."""
        self.aggregator.all_reduce(self.shared_weights)
        if self.unshared:
            self._unshared_mean.all_reduce({name: self.weights[name] for name in self.unshared})

    def step(self, model: nn.Module) -> None:
        """Make the new global model of the updates received, and load it into ``model``."""
        received, total = self.weights, self.aggregator.total
        privacy = self.processors.privacy
        if total or privacy is None:
            mean = self.aggregator.result(reuse=self.shared_weights)
        else:  # nobody came, which the noise hides
            mean = {name: tensor.clone() for name, tensor in self.shared_weights.items()}
        if self.processors.processors:
            change = self.processors.at_server(self.change_of(mean, received), total, self.round)
            torch._foreach_copy_([mean[name] for name in change], torch._foreach_add(
                [received[name] for name in change], list(change.values())))
        if privacy is not None:
            total = privacy.denominator  # not how many have come
            mean.update((name, received[name].clone()) for name in mean.keys() - change.keys())
        if self.unshared:
            kept = {name: received[name] for name in self.unshared}
            mean = {**mean, **(self._unshared_mean.result(reuse=kept) if self._unshared_mean.total else kept)}
        self.weights = {name: mean[name] for name in received}
        self.server_update(received, self.weights, total)
        load_weights(model, self.weights)

    def change_of(self, weights: Mapping[str, Tensor], received: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """By how much weights differ from those that were received: what update processors work on."""
        return dict(zip(self.processed, torch._foreach_sub(
            [weights[name] for name in self.processed], [received[name] for name in self.processed])))

    def restore(self, update: ClientUpdate) -> ClientUpdate:
        """Decode what update processors have made of an update.

        Raises:
            FedSegError: It does not fit the model.
        """
        if update.payload is None:
            return update
        received = self.shared_weights
        try:
            change = self.processors.at_receipt(dict(update.payload), {name: received[name] for name in self.processed})
        except ValueError as error:
            raise FedSegError(f'the update of client {update.client} does not fit the model: {error}') from error
        check_fits(change, {name: received[name] for name in self.processed}, f'the update of client {update.client}')
        weights = {**received, **update.weights}
        weights.update(zip(change, torch._foreach_add([received[name] for name in change], list(change.values()))))
        return replace(update, weights=weights, payload=None)

    def adopt(self, model: nn.Module) -> None:
        """Take changes of the model since :meth:`step` (recalibrated statistics) into the global model."""
        own = model.state_dict()
        copy_tensors((weight, own[name]) for name, weight in self.weights.items())

    def server_update(self, weights: Mapping[str, Tensor], mean: dict[str, Tensor], total: float) -> None:
        """Make the new global model of what the aggregator has made of the updates, in place.

        Args:
            weights (Mapping[str, Tensor]): The global model of this round.
            mean (dict[str, Tensor]): The aggregator's result, such as the mean
                of the updates; what it holds afterwards is the new global
                model.
            total (float): The sum of the updates' weights; where all count
                1, their number.
        """

    def state_dict(self) -> dict:
        """Server state that must survive, beside the global model."""
        return {}

    def load_state_dict(self, state: dict) -> None:
        """Restore :meth:`state_dict`, after :meth:`start`."""


def _without(tensors: dict[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
    if not names:
        return tensors
    left_out = set(names)
    return {name: tensor for name, tensor in tensors.items() if name not in left_out}


def _names_of(module: nn.Module) -> list[str]:
    """The parameters and persistent buffers that a module itself owns."""
    buffers = [name for name, _ in module.named_buffers(recurse=False)
               if name not in module._non_persistent_buffers_set]
    return [name for name, _ in module.named_parameters(recurse=False)] + buffers


@torch.no_grad()
def load_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy a state_dict into the model, in place and in one pass."""
    own: dict[int, tuple[Tensor, Tensor]] = {}
    for name, tensor in model.state_dict().items():
        # a module that stands under two names has its weights under the first
        own.setdefault(tensor.data_ptr() or -len(own), (tensor, weights[name]))
    copy_tensors(own.values())


def copy_tensors(pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Copy the second tensor of each pair into the first, in a pass per type of number: mixed, each has its own."""
    by_type: dict[tuple[torch.dtype, torch.dtype], tuple[list[Tensor], list[Tensor]]] = {}
    for target, source in pairs:
        targets, sources = by_type.setdefault((target.dtype, source.dtype), ([], []))
        targets.append(target)
        sources.append(source)
    for targets, sources in by_type.values():
        torch._foreach_copy_(targets, sources)
