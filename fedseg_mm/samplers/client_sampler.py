"""What every client sampler is: who takes part in a round."""
from abc import ABC, abstractmethod
from collections.abc import Sequence

from fedseg_mm.errors import FedSegError


class ClientSampler(ABC):
    """Draws a cohort per round, ``federated.sampler`` in a config.

    A cohort follows from (seed, round) alone: nothing is stored, a resumed
    run draws the cohorts of the uninterrupted one, and every process draws
    the same.
    """

    def setup(self, num_clients: int, clients_per_round: int, num_images: Sequence[int]) -> None:
        """Learn what federation this is.

        Args:
            num_clients (int): Clients of the federation.
            clients_per_round (int): The config's size of a cohort.
            num_images (Sequence[int]): Images of each client.

        Raises:
            FedSegError: No cohort can be drawn; names the config's key.
        """
        self.check_cohort_size(clients_per_round, num_clients)
        self.num_clients = num_clients
        self.clients_per_round = clients_per_round

    @staticmethod
    def check_cohort_size(clients_per_round: int, num_clients: int) -> None:
        if not 1 <= clients_per_round <= num_clients:
            raise FedSegError(f'federated.clients_per_round={clients_per_round} must be between 1 and the number of '
                              f'clients of the federation, {num_clients}: change it')

    @abstractmethod
    def cohort(self, seed: int, round: int) -> list[int]:
        """The clients of one round, in the order in which they train.

        Args:
            seed (int): Seed of the run.
            round (int): The round, from 0.
        """
