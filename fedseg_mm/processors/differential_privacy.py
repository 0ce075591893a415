"""Client-level differential privacy: clipping, noise on the mean, and the accounting."""
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch
from mmengine.dist import all_reduce, broadcast
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from fedseg_mm.errors import FedSegError
from fedseg_mm.privacy import PrivacyAccountant, Sampling, secure_normal
from fedseg_mm.privacy.accountant import dp_accounting
from fedseg_mm.processors.update_processor import ProcessorContext, UpdateProcessor
from fedseg_mm.registry import UPDATE_PROCESSORS
from fedseg_mm.seeding import derive_seed
from fedseg_mm.validation import check_number

if TYPE_CHECKING:
    from fedseg_mm.federation import Federation

#: The entry of a payload that says whether the update was within the clip.
WITHIN = 'within_clip'
#: A clipped update is shorter than the clip by this share, so that rounding does not make it longer.
MARGIN = 1e-6


@dataclass(frozen=True)
class PrivacySpent:
    """What may be published of a round: nothing in it depends on a client except through the noise.

    Args:
        epsilon (float): After this round.
        delta (float): Of the same guarantee.
        adjacency (str): What distinguishes neighbouring federations.
        noise_multiplier (float): Noise on the sum, relative to the clip, as accounted.
        noise_std (float): Standard deviation of the noise on the mean.
        clip (float): Greatest length of an update in this round.
        reproducible (bool): Whether the noise follows from the seed, so that there is no guarantee.
    """
    epsilon: float
    delta: float
    adjacency: str
    noise_multiplier: float
    noise_std: float
    clip: float
    reproducible: bool

    def sentence(self) -> str:
        """For the console."""
        return (f'epsilon {self.epsilon:.4g} at delta {self.delta:g} ({self.adjacency}), clip {self.clip:.4g}, noise '
                f'multiplier {self.noise_multiplier:.4g}')

    def line(self) -> dict:
        """For rounds.json."""
        return {name: None if value == math.inf else value for name, value in asdict(self).items()}


@UPDATE_PROCESSORS.register_module()
class DifferentialPrivacy(UpdateProcessor):
    r"""DP-FedAvg with its accounting (McMahan et al., ICLR 2018; Andrew et al., NeurIPS 2021).

    Every update is clipped to length :math:`S` as one vector of the trained
    parameters, by the client and again by the server. The server divides their
    sum by a fixed number n and adds noise:

    .. math::
        \bar\Delta = \frac 1n \Bigl(\sum_{k \in S_t} \Delta_k + \mathcal N(0, z_\Delta^2 S^2 I)\Bigr)

    n is the size of a cohort, or under Poisson sampling its mean, whoever
    takes part. Tensors that are not trained stay as they are.

    With ``target_quantile`` :math:`\gamma`, the clip follows the updates'
    lengths (Andrew et al., algorithm 1): each client adds the bit
    :math:`b_k = [\lVert\Delta_k\rVert \le S] - \frac12`, and

    .. math::
        S \leftarrow S \exp(-\eta (\tilde b - \gamma)), \qquad
        \tilde b = \frac 12 + \frac 1n \Bigl(\sum b_k + \mathcal N(0, \sigma_b^2)\Bigr), \qquad
        z_\Delta = (z^{-2} - (2 \sigma_b)^{-2})^{-1/2}

    so that both releases together cost what noise :math:`z` alone would.

    Accounting: by Rényi differential privacy (``dp-accounting``). Under
    ``PoissonSampler`` and ``AllClientsSampler``, neighbours differ by one
    client that is added or removed; under ``UniformSampler``, one client is
    replaced, which moves the sum by up to :math:`2 S`.

    Args:
        delta (float): :math:`\delta`, in (0, 1); less than one over the
            number of clients.
        max_norm (float): :math:`S`, or with ``target_quantile`` the first one,
            above 0.
        noise_multiplier (float, optional): z, at least 0. Defaults to None:
            the least noise with which all rounds keep ``target_epsilon``.
        target_epsilon (float, optional): Where the training stops, above 0.
            Defaults to None: it does not.
        target_quantile (float, optional): :math:`\gamma`, between 0 and 1.
            Defaults to None: the clip is fixed.
        clip_learning_rate (float): :math:`\eta`. Defaults to 0.2.
        count_noise (float, optional): :math:`\sigma_b`. Defaults to None:
            n / 20, but at least z.
        reproducible (bool): Derive noise and cohorts from the run's seed, for
            experiments: whoever knows the seed can subtract the noise.
            Defaults to False: both come from the operating system's secure
            generator.

    Raises:
        FedSegError: An argument is not as described, or the accounting's
            package is missing.
    """

    needs_equal_weights = True
    encodes = True

    def __init__(self, delta: float, max_norm: float, noise_multiplier: float | None = None,
                 target_epsilon: float | None = None, target_quantile: float | None = None,
                 clip_learning_rate: float = 0.2, count_noise: float | None = None,
                 reproducible: bool = False) -> None:
        super().__init__()
        self.delta = check_number(self._key('delta'), delta, above=0, below=1)
        self.max_norm = check_number(self._key('max_norm'), max_norm, above=0)
        if noise_multiplier is None and target_epsilon is None:
            raise FedSegError('federated.processors.DifferentialPrivacy needs noise_multiplier, or target_epsilon to '
                              'derive it from')
        if noise_multiplier is not None:
            check_number(self._key('noise_multiplier'), noise_multiplier, least=0)
        if target_epsilon is not None:
            check_number(self._key('target_epsilon'), target_epsilon, above=0)
        if target_quantile is not None:
            check_number(self._key('target_quantile'), target_quantile, above=0, below=1)
        if count_noise is not None:
            check_number(self._key('count_noise'), count_noise, above=0)
        if not isinstance(reproducible, bool):
            raise FedSegError(f'{self._key("reproducible")} must be True or False, but is {reproducible!r}')
        self._given_noise, self.target_epsilon, self.target_quantile = noise_multiplier, target_epsilon, target_quantile
        self.clip_learning_rate = check_number(self._key('clip_learning_rate'), clip_learning_rate, above=0)
        self.count_noise, self.reproducible = count_noise, reproducible
        dp_accounting()
        self.accountant = PrivacyAccountant(delta)
        self.sampling: Sampling | None = None
        self.noise_multiplier = noise_multiplier or 0.0
        #: Of the last round.
        self.spent: PrivacySpent | None = None
        self._within = 0.0
        self._planned: list | None = None

    # --- before training ----------------------------------------------------
    def check(self, federation: 'Federation') -> None:
        """Refuse parts of a federation that break the guarantee.

        Raises:
            FedSegError: Names the part, and what to do.
        """
        own, algorithm = type(self).__name__, federation.algorithm
        if len(federation.processors.processors) > 1:
            raise FedSegError(f'federated.processors: {own} clips and adds noise itself, and what other processors do '
                              'to an update is not accounted for: use it alone')
        if (name := type(federation.make_aggregator()).__name__) != 'WeightedMean':
            raise FedSegError(f'federated.aggregator: {own} knows what one client can change in the mean, but not in '
                              f'{name}: leave out federated.aggregator')
        if (name := type(federation.sampler).__name__) not in ('PoissonSampler', 'UniformSampler', 'AllClientsSampler'):
            raise FedSegError(f'federated.sampler: the cohorts of {name} have no accounting under {own}: use '
                              'PoissonSampler, UniformSampler or AllClientsSampler')
        if algorithm.sends_extras:
            raise FedSegError(f'federated.algorithm: {type(algorithm).__name__} sends a second quantity beside the '
                              f'weights, which {own} neither clips nor noises: use a method that sends weights alone')
        if type(algorithm.batch_norm).__name__ != 'AverageBatchNorm':
            raise FedSegError('federated.algorithm.batch_norm: what clients keep or what is computed over their images '
                              f"reaches the checkpoint without {own}'s noise: leave batch_norm at 'average'")

    def begin(self, federation: 'Federation', rounds: int) -> None:
        """Find the noise, once the model and the clients are known.

        Args:
            federation (Federation): About to train.
            rounds (int): Rounds of the whole run.

        Raises:
            FedSegError: The model gathers statistics of images, or the target
                cannot be kept.
        """
        model, own = federation.model, type(self).__name__
        was_training = model.training
        model.train()  # frozen layers stay in evaluation mode
        gathering = [name for name, module in model.named_modules()
                     if isinstance(module, _BatchNorm) and module.track_running_stats and module.training]
        model.train(was_training)
        if gathering:
            raise FedSegError(f'the batch normalisation {gathering[0]} gathers statistics of the clients\' images, '
                              f'which {own} does not protect: use GroupNorm (norm_cfg=dict(type="GN", num_groups=...)) '
                              'or freeze the statistics (norm_eval=True)')
        if federation.algorithm.unshared:
            raise FedSegError(f'clients keep {federation.algorithm.unshared[0]}, whose mean reaches the checkpoint '
                              f"without {own}'s noise: use a method that shares all weights")
        sampler, clients = federation.sampler, len(federation.shards)
        if type(sampler).__name__ == 'UniformSampler':
            self.sampling = Sampling('fixed', clients, sampler.clients_per_round)
        else:  # all clients come with probability 1
            probability = getattr(sampler, 'probability', None)
            mean = sampler.clients_per_round if probability is None else probability * clients
            self.sampling = Sampling('poisson', clients, float(mean))
        plan = [rounds, self.target_epsilon, list(asdict(self.sampling).values())]
        done = sum(entry[4] for entry in self.accountant.rounds)
        if self._given_noise is None and self._planned != plan:
            assert self.target_epsilon is not None
            if rounds > done:
                self.noise_multiplier = self.accountant.noise_for(self.sampling, self.target_epsilon, rounds - done)
            self._planned = plan
        if (reason := self.stops(rounds - done)) and not done:
            raise FedSegError(f'{self._key("target_epsilon")}: not even one round can be trained: {reason}')
        self._update_noise()  # refuses a count noise that is too small

    def _update_noise(self) -> float:
        """:math:`z_\\Delta`, the noise on the updates themselves."""
        assert self.sampling is not None
        z = self.noise_multiplier
        if self.target_quantile is None or not z:
            return z
        self.sigma_b = self.count_noise or max(self.sampling.cohort / 20, z)
        if 2 * self.sigma_b <= z:
            raise FedSegError(f'{self._key("count_noise")} must be above half the noise multiplier, {z / 2:.4g}, but '
                              f'is {self.sigma_b:g}: raise it')
        return (z ** -2 - (2 * self.sigma_b) ** -2) ** -0.5

    def sentences(self, rounds: int) -> list[str]:
        """What the log says before training."""
        assert self.sampling is not None
        end = self.accountant.epsilon(self.sampling, self.noise_multiplier,
                                      max(rounds - sum(entry[4] for entry in self.accountant.rounds), 0))
        said = [f'Differential privacy of clients ({self.sampling.adjacency}): noise multiplier '
                f'{self.noise_multiplier:.4g}, epsilon {end:.4g} at delta {self.delta:g} after all {rounds} rounds.']
        if self.reproducible:
            said.append('reproducible=True: noise and cohorts follow from the seed, so there is NO privacy '
                        'guarantee against anyone who knows it.')
        if self.delta >= 1 / self.sampling.num_clients:
            said.append(f'delta={self.delta:g} is not below one over the number of clients, '
                        f'{1 / self.sampling.num_clients:.2g}: publishing all of one client may satisfy it.')
        return said

    def stops(self, left: int = 1) -> str | None:
        """Why no further round may be trained, or None."""
        assert self.sampling is not None
        if self.target_epsilon is None or left <= 0:
            return None
        after = self.accountant.epsilon(self.sampling, self.noise_multiplier, 1)
        if after <= self.target_epsilon:
            return None
        return (f'the next round would raise epsilon to {after:.4g}, above target_epsilon='
                f'{self.target_epsilon:g}')

    # --- at the client ------------------------------------------------------
    def at_client(self, delta: dict[str, Tensor], context: ProcessorContext) -> dict[str, Tensor]:
        """Clip the trained parameters' change in place; other tensors do not change."""
        if context.weight != 1:
            raise FedSegError(f'federated.processors: {type(self).__name__} needs all updates to have weight 1 in the '
                              f'mean, but that of client {context.client} has {context.weight:g}')
        for name, tensor in delta.items():
            if name not in context.trained:
                tensor.zero_()
        norm = self._clip(delta)
        if self.target_quantile is not None:
            delta[WITHIN] = (norm <= self.max_norm).float().cpu()
        return delta

    def _clip(self, delta: Mapping[str, Tensor]) -> Tensor:
        """Scale in place; the length before (float64)."""
        if not delta:
            return torch.zeros((), dtype=torch.float64)
        norm = torch.linalg.vector_norm(torch.stack(
            torch._foreach_norm(list(delta.values()), 2, dtype=torch.float64)))
        scale = torch.where(norm > self.max_norm, self.max_norm * (1 - MARGIN) / norm, 1.0)
        for tensor in delta.values():
            tensor.mul_(scale.to(tensor.dtype))
        return norm

    # --- at the server ------------------------------------------------------
    def at_receipt(self, payload: dict[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Clip what a client may not have, and note its bit; called once for each update."""
        payload = dict(payload)
        within = payload.pop(WITHIN, None)
        if self.target_quantile is not None:
            if within is None or within.numel() != 1:
                raise ValueError(f'it lacks the number `{WITHIN}`')
            self._within += float(within.item() > 0.5) - 0.5
        if not all(bool(torch.isfinite(tensor).all()) for tensor in payload.values()):
            raise ValueError('it holds NaN or infinite values')
        self._clip(payload)
        return payload

    @property
    def denominator(self) -> float:
        """What the sum of the updates is divided by, whoever took part."""
        assert self.sampling is not None
        return self.sampling.cohort

    def at_server(self, delta: dict[str, Tensor], total: float, round: int) -> dict[str, Tensor]:
        """Divide by the fixed number, add the noise, count the round, move the clip."""
        assert self.sampling is not None
        noise = self._update_noise()
        std = noise * self.max_norm / self.denominator
        trained = [delta[name] for name in self.trained_names() if name in delta]
        others = {id(tensor) for tensor in trained}
        for tensor in delta.values():
            if id(tensor) not in others:
                tensor.zero_()
        torch._foreach_mul_(trained, total / self.denominator)
        sizes = [tensor.numel() for tensor in trained]
        numbers = self._normal(sum(sizes) + 1, round)
        if std and trained:
            for tensor, part in zip(trained, numbers[1:].split(sizes)):
                tensor.add_(part.view(tensor.shape).to(tensor), alpha=std)
        self.accountant.add(self.sampling, self.noise_multiplier)
        self.spent = PrivacySpent(
            self.accountant.epsilon(self.sampling, self.noise_multiplier), self.delta, self.sampling.adjacency,
            self.noise_multiplier, std, self.max_norm, self.reproducible)
        if self.target_quantile is not None:
            bits = torch.tensor(self._within, dtype=torch.float64)
            all_reduce(bits)
            noisy = bits.item() + (self.sigma_b * numbers[0].item() if self.noise_multiplier else 0.0)
            share = 0.5 + noisy / self.denominator
            self.max_norm *= math.exp(-self.clip_learning_rate * (share - self.target_quantile))
            self._within = 0.0
        return delta

    def _normal(self, size: int, round: int) -> Tensor:
        if self.reproducible:
            if self.seed is None:
                raise RuntimeError('DifferentialPrivacy.setup must be called with the seed of the run before a round')
            return torch.randn(size, generator=torch.Generator().manual_seed(derive_seed(self.seed, 'noise', round)))
        noise = secure_normal(size)
        broadcast(noise)  # every process adds the first one's
        return noise

    def trained_names(self) -> list[str]:
        """Names of the trainable parameters; the federation sets it."""
        raise RuntimeError('DifferentialPrivacy needs a federation')

    # --- checkpoints --------------------------------------------------------
    def state_dict(self) -> dict:
        return dict(rounds=[list(entry) for entry in self.accountant.rounds], max_norm=self.max_norm,
                    noise_multiplier=self.noise_multiplier, planned=self._planned,
                    epsilon=None if self.spent is None else self.spent.epsilon)

    def load_state_dict(self, state: dict) -> None:
        self.accountant.rounds = [tuple(entry) for entry in state['rounds']]
        if self.target_quantile is not None:
            self.max_norm = state['max_norm']
        self._planned = state['planned']
        if self._given_noise is None:
            self.noise_multiplier = state['noise_multiplier']
