"""The one place where a client trains."""
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import torch
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from fedseg_mm.algorithms.fedavg import FedAvg, load_weights
from fedseg_mm.attacks import HostileClients
from fedseg_mm.datasets import ClientStream, Pass
from fedseg_mm.datasets.client_sample import widen_labels
from fedseg_mm.engine.client_state_store import ClientStateStore
from fedseg_mm.errors import FedSegError
from fedseg_mm.models import (
    BackCELoss,
    FrozenModel,
    MissingMaps,
    PixelFeatures,
    accuracy_without_waiting,
    flip_without_waiting,
    hide_unannotated_pixels,
)
from fedseg_mm.processors import ProcessorContext
from fedseg_mm.seeding import derive_seed
from fedseg_mm.structures import Broadcast, ClientContext, ClientUpdate


def starts_at_zero(optimizer: torch.optim.Optimizer) -> bool:
    """Whether zeros in the place of an optimizer's state are what it begins with.

    Its tensors can then stay: to free them and ask for new ones costs a CPU
    as much as a step of a small model.
    """
    if type(optimizer) is torch.optim.SGD:  # with dampening, the first step takes more of the gradient than the others
        return not any(group['dampening'] for group in optimizer.param_groups)
    return type(optimizer) in (torch.optim.Adam, torch.optim.AdamW)


class TooSlow(Exception):
    """A client took longer than it may; says how long."""


def _as_it_is(function: Callable) -> Callable:
    return function


class LocalTrainer:
    """Trains any client, one after the other, with one warm model and optimizer.

    Args:
        model (BaseModel): An MMSegmentation segmentor, on its device.
        optim_wrapper (OptimWrapper): MMEngine's, built for ``model``.
        stream (ClientStream): The clients' batches.
        algorithm (FedAvg): The federated method.
        store (ClientStateStore): What clients keep from round to round.
        seed (int): Seed of the run.
        hostile (HostileClients, optional): Whose updates are falsified.
            Defaults to None: nobody's.

    Raises:
        FedSegError: The method does not fit the model or the optimizer.
    """

    def __init__(self, model: BaseModel, optim_wrapper: OptimWrapper, stream: ClientStream, algorithm: FedAvg,
                 store: ClientStateStore, seed: int, hostile: HostileClients | None = None) -> None:
        self.model = model
        self.optim_wrapper = optim_wrapper
        self.stream = stream
        self.algorithm = algorithm
        self.store = store
        self.seed = seed
        self.hostile = hostile or HostileClients()
        stream.batch_sampler.seed = seed
        flip_without_waiting(model.data_preprocessor)
        model.data_preprocessor.register_forward_hook(widen_labels)
        model.data_preprocessor._non_blocking = True  # images and labels that are pinned travel while the host goes on
        self.back_ce_losses = [module for module in model.modules() if isinstance(module, BackCELoss)]
        self.own_names = algorithm.own_names(model)
        self.has_batch_norm = any(isinstance(module, _BatchNorm) for module in model.modules())
        self._features = self._find_features()
        if self._overrides('adjust_gradients') and optim_wrapper.optimizer.defaults.get('fused'):
            raise FedSegError(f'{type(algorithm).__name__} changes gradients before the optimizer steps, which '
                              'optim_wrapper.optimizer.fused=True does not allow: remove it')
        #: What keeps a function out of compiled graphs; see :meth:`compile`.
        self._untraced: Callable = _as_it_is
        self.frozen_model = FrozenModel(model)
        if self._features is not None:
            _ = self.frozen_model.module  # now: in the middle of a step a model may hold what cannot be copied

    def compile(self, wrapped: bool, **options) -> None:
        """Compile the network once, and not anew for every client (MMEngine's ``compile``).

        What depends on the client, the round or the sizes of the images
        before they are padded stays out of the graphs, each of which would be
        compiled for each of them: hooks, losses' sums, BackCE, the data
        preprocessor and the optimizer's step.

        Args:
            wrapped (bool): Whether MMEngine has compiled a wrapper of the
                model, which is not what trains.
            options: Arguments of ``torch.compile``.
        """
        self._untraced = torch.compiler.disable
        for owner, name in ((self.model.data_preprocessor, 'forward'), (self.model, 'parse_losses'),
                            (self.optim_wrapper, 'update_params'),
                            *((loss, 'forward') for loss in self.back_ce_losses)):
            setattr(owner, name, self._untraced(getattr(owner, name)))
        if wrapped:
            self.model.train_step = torch.compile(self.model.train_step, **options)

    def _find_features(self) -> PixelFeatures | MissingMaps | None:
        """What catches the maps for a method that adds losses; a method that does not ask for them needs none."""
        if not self._overrides('local_loss'):
            return None
        try:
            return PixelFeatures(self.model)
        except FedSegError as error:
            if self.algorithm.reads_maps:
                raise
            return MissingMaps(error)

    def _overrides(self, method: str) -> bool:
        return getattr(type(self.algorithm), method) is not getattr(FedAvg, method)

    def passes(self, round: int, cohort: Sequence[int], share: Sequence[int]) -> list[Pass]:
        """The passes over clients' images of one round.

        Args:
            round (int): The round, from 0.
            cohort (Sequence[int]): Its clients, for :meth:`recalibrate`.
            share (Sequence[int]): Those that this process trains, for
                :meth:`fit`.
        """
        surveys = [True, False] if self.algorithm.surveys(round) else [False]
        passes = [Pass(round, client, survey) for client in share for survey in surveys]
        if self.algorithm.batch_norm.recalibrates:
            passes += [Pass(round, client, survey=True) for client in cohort]
        return passes

    def fit(self, client: int, broadcast: Broadcast, time_limit: float | None = None) -> ClientUpdate:
        """Train one client from the broadcast weights.

        The result depends on the arguments, the client's stored state and the
        run's seed alone: not on the clients before, the number of loader
        workers or the process (but for the scale of float16's losses, which
        the clients share).

        Args:
            client (int): The client's id.
            broadcast (Broadcast): What the server sent.
            time_limit (float, optional): Seconds that the client may take.
                Defaults to None: as long as it takes.

        Returns:
            ClientUpdate: Its weights are the model's live tensors.

        Raises:
            FedSegError: An image cannot be loaded; names the file.
            TooSlow: The client has exceeded its time.
        """
        started = time.perf_counter()
        num_steps = self.stream.batch_sampler.num_batches(client)
        for group, values in zip(self.optim_wrapper.optimizer.param_groups, broadcast.hyperparameters):
            group.update(values)
        self._renew_optimizer()
        self.optim_wrapper.initialize_count_status(self.model, 0, num_steps)
        context = self.begin(client, broadcast)
        self.model.train()
        sums: dict[str, Tensor] = {}
        device = next(self.model.parameters()).device
        with self.method_in_step(context):
            for batch in self.stream.batches(Pass(broadcast.round, client)):
                log_vars = self.model.train_step(batch, optim_wrapper=self.optim_wrapper)
                for name, value in log_vars.items():
                    if not torch.is_tensor(value):  # filled in on the device: a copy would be waited for
                        value = torch.full((), value, dtype=torch.float32, device=device)
                    value = value.detach()
                    sums[name] = sums[name] + value if name in sums else value
                if time_limit is not None and (seconds := time.perf_counter() - started) > time_limit:
                    self._leave_client()
                    raise TooSlow(f'it exceeded client_time_limit={time_limit:g}: {seconds:.1f} s so far')
        with torch.no_grad():
            extras = self.algorithm.finish_client(context)
        self._leave_client()
        weights = self.model.state_dict()
        metrics, is_finite = self._metrics(sums, num_steps, weights)
        unshared = {name: weights.pop(name) for name in self.own_names}
        update = ClientUpdate(client, weights, context.num_images, num_steps, metrics, is_finite, extras, unshared)
        update = self.hostile.alter(update, broadcast, self.algorithm.trained)
        is_finite = update.is_finite
        keep = {'weights': unshared, 'state': context.state}
        if is_finite and self.algorithm.processors.processors:
            update, keep['processors'] = self._process(update, broadcast)
        if is_finite and any(keep.values()):
            self.store.save(client, broadcast.round + 1, keep)
        return update

    def _leave_client(self) -> None:
        self.optim_wrapper.zero_grad()
        for loss in self.back_ce_losses:
            loss.set_annotated_classes(None)
            loss.set_unannotated(None)

    def _process(self, update: ClientUpdate, broadcast: Broadcast) -> tuple[ClientUpdate, dict[str, Tensor]]:
        """Have the update processors change what leaves; with what they keep for this client."""
        algorithm = self.algorithm
        state = self.store.load(update.client, next(self.model.parameters()).device).get('processors', {})
        context = ProcessorContext(self.seed, broadcast.round, update.client, frozenset(algorithm.trained),
                                   algorithm.update_weight(update), state)
        payload = algorithm.processors.at_client(algorithm.change_of(update.weights, broadcast.weights), context)
        others = {name: tensor for name, tensor in update.weights.items() if not tensor.is_floating_point()}
        return replace(update, weights=others, payload=payload), context.state

    def begin(self, client: int, broadcast: Broadcast) -> ClientContext:
        """Load the broadcast weights into the model and let the method prepare, as before a client's first step.

        Args:
            client (int): The client's id.
            broadcast (Broadcast): What the server sent.

        Raises:
            FedSegError: An image cannot be loaded; names the file.
        """
        shard = self.stream.batch_sampler.shards[client]
        stored = self.store.load(client, next(self.model.parameters()).device)
        torch.manual_seed(derive_seed(self.seed, 'training', broadcast.round, client))
        survey = self._survey(Pass(broadcast.round, client, survey=True))
        surveys = iter([survey])

        def survey_once() -> Iterator[tuple[Tensor, Tensor]]:
            found = next(surveys, None)
            if found is None:
                raise FedSegError(f'{type(self.algorithm).__name__} asks for a second survey of client {client}, but '
                                  'its images are loaded once per round: keep what is needed in context.memory')
            return found

        context = ClientContext(
            client, shard.classes, len(shard.indices), broadcast, self.model, self.frozen_model, survey_once,
            own=frozenset(self.own_names), own_weights=stored.get('weights', {}), state=stored.get('state', {}))
        load_weights(self.model, context.received)
        with self.optim_wrapper.optim_context(self.model):
            self.algorithm.setup_client(context)
        if self.algorithm.surveys(broadcast.round):
            for _ in survey:  # what the method left
                pass
        return context

    def recalibrate(self, round: int, clients: Sequence[int]) -> None:
        """Compute the model's statistics of batch normalisation anew, over the clients' images.

        Layers that inference does not use (auxiliary heads) keep theirs.

        Args:
            round (int): The round, from 0.
            clients (Sequence[int]): Whose images are seen, once each.
        """
        self.model.train()  # a model keeps statistics that are to stay (norm_eval, frozen stages) in evaluation mode
        layers = [module for module in self.model.modules()
                  if isinstance(module, _BatchNorm) and module.track_running_stats and module.training]
        before = [(layer.momentum, {name: buffer.clone() for name, buffer in layer.named_buffers()})
                  for layer in layers]
        self.model.eval()  # no dropout
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # a plain mean over the batches
            layer.train()
        with torch.no_grad(), self.optim_wrapper.optim_context(self.model):
            for client in clients:
                for images, _ in self._survey(Pass(round, client, survey=True)):
                    if len(images) > 1:  # as in training: one image has no statistics where it is pooled to a pixel
                        self.model(images, mode='tensor')
        for layer, (momentum, buffers) in zip(layers, before):
            layer.momentum = momentum
            if layer.num_batches_tracked == 0:
                for name, buffer in layer.named_buffers():
                    buffer.copy_(buffers[name])

    @contextmanager
    def own_models(self) -> Iterator[Iterator[int]]:
        """Load one client's own model after the other into the model; afterwards it is the global one again."""
        weights = self.algorithm.weights

        def load_each() -> Iterator[int]:
            for client in range(len(self.stream.batch_sampler.shards)):
                stored = self.store.load(client, next(self.model.parameters()).device)
                load_weights(self.model, {**weights, **stored.get('weights', {})})
                yield client

        try:
            yield load_each()
        finally:
            load_weights(self.model, weights)

    @contextmanager
    def method_in_step(self, context: ClientContext) -> Iterator[None]:
        """The client's and the method's part in every training step, as hooks of the stock step."""
        with ExitStack() as stack:
            stack.enter_context(accuracy_without_waiting(self.model))
            stack.callback(hide_unannotated_pixels(self.model, self._untraced).remove)
            if (features := self._features) is not None:
                stack.enter_context(features.caught())

                def see_batch(model, args, kwargs):
                    if model is self.model and kwargs.get('mode') == 'loss':
                        context.images = kwargs['inputs']
                        context.labels = torch.cat([sample.gt_sem_seg.data for sample in kwargs['data_samples']])

                def add_losses(model, args, kwargs, losses):
                    if model is self.model and kwargs.get('mode') == 'loss':
                        context.maps = features.take()  # type: ignore[assignment]
                        return {**losses, **self._terms(context)}

                # before label 254 is hidden
                stack.callback(self.model.register_forward_pre_hook(
                    self._untraced(see_batch), prepend=True, with_kwargs=True).remove)
                stack.callback(self.model.register_forward_hook(
                    self._untraced(add_losses), with_kwargs=True).remove)
            if self._overrides('adjust_gradients'):
                stack.callback(self.optim_wrapper.optimizer.register_step_pre_hook(
                    lambda *_: self.algorithm.adjust_gradients(context)).remove)
            yield
        context.images = context.labels = context.maps = None  # type: ignore[assignment]

    def _terms(self, context: ClientContext) -> dict[str, Tensor]:
        """The method's own terms.

        Raises:
            FedSegError: One of them could be optimised, and would not.
        """
        terms = {}
        for name, value in self.algorithm.local_loss(context).items():
            terms[name] = value if torch.is_tensor(value) else context.images.new_full((), value)
            if terms[name].requires_grad and 'loss' not in name:
                raise FedSegError(f"local_loss of {type(self.algorithm).__name__} gives `{name}`, which MMEngine does "
                                  f"not optimise because 'loss' is not in the name: call it loss_{name}, or detach it "
                                  'if it is only to be logged')
        return terms

    def _survey(self, wanted: Pass) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self.stream.batches(wanted):
            data = self.model.data_preprocessor(batch, True)
            yield data['inputs'], torch.cat([sample.gt_sem_seg.data for sample in data['data_samples']])

    def _renew_optimizer(self) -> None:
        """Make the optimizer equal to a new one bit for bit, without the cost of one."""
        optimizer = self.optim_wrapper.optimizer
        if starts_at_zero(optimizer):
            by_device: dict[torch.device, list[Tensor]] = {}
            for state in optimizer.state.values():
                for tensor in filter(torch.is_tensor, state.values()):
                    by_device.setdefault(tensor.device, []).append(tensor)
            for tensors in by_device.values():
                torch._foreach_zero_(tensors)
        else:
            optimizer.state.clear()
        self.optim_wrapper.zero_grad()

    @staticmethod
    def _metrics(sums: dict[str, Tensor], num_steps: int, weights: dict[str, Tensor]) -> tuple[dict[str, float], bool]:
        """Means over the batches, and whether the weights are finite, with one device sync."""
        floating = [tensor for tensor in weights.values() if tensor.is_floating_point()]
        # one kernel on a GPU; on a CPU, where it is none, a norm takes longer than a sum
        looks = torch._foreach_norm(floating) if floating[0].is_cuda else [tensor.sum() for tensor in floating]
        look = torch.stack([number.float() for number in looks]).sum()
        *means, look = torch.stack([*(value.float() / num_steps for value in sums.values()), look]).tolist()
        metrics = dict(zip(sums, means))
        # neither is finite where a number is not, and where the numbers are very large: a fast look, then an exact one
        finite = math.isfinite(look) or all(bool(tensor.isfinite().all()) for tensor in floating)
        return metrics, finite
