"""Base of the client samplers: who takes part in a round."""
from abc import ABC, abstractmethod
from collections.abc import Sequence

from fedseg_mm.datasets.partition import ClientShard
from fedseg_mm.errors import FedSegError


class ClientSampler(ABC):
    """Draws a cohort per round, ``federated.sampler`` in a config.

    A cohort follows from (seed, round) alone: nothing is stored, a resumed
    run draws the cohorts of the uninterrupted one, and every process draws
    the same.
    """

    #: Whether every client takes part in every round, whatever ``clients_per_round`` is.
    takes_all = False

    def setup(self, shards: Sequence[ClientShard], clients_per_round: int) -> None:
        """Take note of the federation.

        Args:
            shards (Sequence[ClientShard]): What each client holds and
                annotates.
            clients_per_round (int): The config's size of a cohort.

        Raises:
            FedSegError: No cohort can be drawn; names the config's key.
        """
        if not 1 <= clients_per_round <= len(shards):
            raise FedSegError(f'federated.clients_per_round={clients_per_round} must be between 1 and {len(shards)}, '
                              'the number of clients of the federation')
        self.num_clients = len(shards)
        self.clients_per_round = clients_per_round

    @abstractmethod
    def cohort(self, seed: int, round: int) -> list[int]:
        """The clients of one round, in the order in which they train.

        Args:
            seed (int): Seed of the run.
            round (int): The round, from 0.
        """
