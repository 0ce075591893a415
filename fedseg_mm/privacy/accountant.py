"""The privacy that the rounds of a run have cost."""
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

from fedseg_mm.errors import FedSegError

#: Noise multipliers between which one is searched for.
LEAST_NOISE, MOST_NOISE = 1e-2, 1e5


def dp_accounting():
    """The library that does the accounting.

    Raises:
        FedSegError: It is not installed.
    """
    try:
        import dp_accounting
        import dp_accounting.rdp  # noqa: F401
    except ImportError as error:
        raise FedSegError('DifferentialPrivacy needs the package dp-accounting, which is not installed: '
                          'pip install "fedseg_mm[privacy]"') from error
    return dp_accounting


@dataclass(frozen=True)
class Sampling:
    """How cohorts are drawn, as the accounting sees it.

    Args:
        kind (str): 'poisson', every client with the same probability on its
            own; or 'fixed', cohorts of one size without replacement.
        num_clients (int): Clients of the federation, N.
        cohort (float): Clients of a cohort: their mean, or their number.
    """
    kind: str
    num_clients: int
    cohort: float

    @property
    def adjacency(self) -> str:
        """What distinguishes two neighbouring federations."""
        return 'add or remove one client' if self.kind == 'poisson' else 'replace one client'

    def event(self, noise_multiplier: float):
        """One round as an event of dp-accounting.

        Args:
            noise_multiplier (float): Noise on the sum of a cohort's updates,
                relative to the clip.
        """
        library = dp_accounting()
        if self.kind == 'poisson':
            return library.PoissonSampledDpEvent(self.cohort / self.num_clients,
                                                 library.GaussianDpEvent(noise_multiplier))
        # to replace one client moves the sum by up to twice the clip
        return library.SampledWithoutReplacementDpEvent(self.num_clients, int(self.cohort),
                                                        library.GaussianDpEvent(noise_multiplier / 2))


class PrivacyAccountant:
    """Composes rounds by Rényi differential privacy, with ``dp-accounting``'s RdpAccountant.

    Args:
        delta (float): :math:`\\delta`.
    """

    def __init__(self, delta: float) -> None:
        self.delta = delta
        #: Rounds of the same kind: (sampling kind, clients, cohort, noise multiplier, rounds).
        self.rounds: list[tuple[str, int, float, float, int]] = []

    def add(self, sampling: Sampling, noise_multiplier: float, rounds: int = 1) -> None:
        """Count rounds."""
        entry = (sampling.kind, sampling.num_clients, sampling.cohort, noise_multiplier)
        if self.rounds and self.rounds[-1][:4] == entry:
            rounds += self.rounds.pop()[4]
        self.rounds.append((*entry, rounds))

    def _events(self, sampling: Sampling, noise_multiplier: float, more: int) -> tuple:
        """The rounds so far, and further ones, as :attr:`rounds` keeps them.

        Raises:
            FedSegError: The rounds so far protect against other neighbours.
        """
        all_rounds = PrivacyAccountant(self.delta)
        all_rounds.rounds = [*self.rounds]
        if more:
            all_rounds.add(sampling, noise_multiplier, more)
        for kind, *_ in all_rounds.rounds:
            if kind != sampling.kind:
                raise FedSegError(f'the rounds before had {kind} cohorts and these are {sampling.kind}, which protect '
                                  'against different neighbours and cannot be added: resume with the sampler of the '
                                  'first run')
        return tuple(all_rounds.rounds)

    def epsilon(self, sampling: Sampling, noise_multiplier: float, more: int = 0) -> float:
        """:math:`\\varepsilon` of the rounds so far, and of ``more`` further ones.

        Raises:
            FedSegError: The rounds so far protect against other neighbours.
        """
        return _epsilon(sampling.kind, self._events(sampling, noise_multiplier, more), self.delta)

    def noise_for(self, sampling: Sampling, target: float, more: int) -> float:
        """The noise multiplier with which ``more`` further rounds end just below a target.

        Args:
            sampling (Sampling): How cohorts are drawn.
            target (float): :math:`\\varepsilon` after the last round.
            more (int): Rounds to come, at least 1.

        Raises:
            FedSegError: No noise is enough.
        """
        library = dp_accounting()
        if self.epsilon(sampling, MOST_NOISE, more) > target:
            raise FedSegError(f'federated.processors.DifferentialPrivacy.target_epsilon={target:g} cannot be kept '
                              f'with {more} further rounds, whatever the noise: raise it or train fewer rounds')
        if self.epsilon(sampling, LEAST_NOISE, more) <= target:
            return LEAST_NOISE
        with _without_warnings():
            return float(library.calibrate_dp_mechanism(
                lambda: _accountant(sampling.kind), lambda noise: _composed(self._events(sampling, noise, more)),
                target, self.delta, library.LowerEndpointAndGuess(LEAST_NOISE, 1.0), tol=1e-3))


def _accountant(kind: str):
    library = dp_accounting()
    relation = library.NeighboringRelation
    return library.rdp.RdpAccountant(
        neighboring_relation=relation.ADD_OR_REMOVE_ONE if kind == 'poisson' else relation.REPLACE_ONE)


def _composed(rounds: tuple):
    library = dp_accounting()
    return library.ComposedDpEvent([
        library.SelfComposedDpEvent(Sampling(kind, clients, cohort).event(noise), number)
        for kind, clients, cohort, noise, number in rounds])


@lru_cache(maxsize=8)  # asked for before a round and after it; sampling without replacement takes tenths of a second
def _epsilon(kind: str, rounds: tuple, delta: float) -> float:
    if not rounds:
        return 0.0
    if not all(noise for _, _, _, noise, _ in rounds):
        return math.inf
    with _without_warnings():
        return float(_accountant(kind).compose(_composed(rounds)).get_epsilon(delta))


@contextmanager
def _without_warnings() -> Iterator[None]:
    """The library warns of every order that it leaves out, without which the bound is valid too."""
    logger, level = logging.getLogger('absl'), logging.getLogger('absl').level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
