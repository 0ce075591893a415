"""Who takes part in a round."""
from fedseg_mm.errors import FedSegError
from fedseg_mm.seeding import derived_generator


class ClientSampler:
    """Draws a cohort per round, uniformly and without replacement.

    A cohort follows from (seed, round) alone: nothing is stored, and a
    resumed run draws the cohorts of the uninterrupted one.

    Args:
        num_clients (int): Clients of the federation.
        clients_per_round (int): Size of a cohort.

    Raises:
        FedSegError: A cohort would be empty or larger than the federation.
    """

    def __init__(self, num_clients: int, clients_per_round: int) -> None:
        if not 1 <= clients_per_round <= num_clients:
            raise FedSegError(f'federated.clients_per_round={clients_per_round} must be between 1 and the number of '
                              f'clients of the federation, {num_clients}: change it')
        self.num_clients = num_clients
        self.clients_per_round = clients_per_round

    def cohort(self, seed: int, round: int) -> list[int]:
        """The clients of one round, in the order in which they train."""
        generator = derived_generator(seed, 'cohort', round)
        return generator.choice(self.num_clients, self.clients_per_round, replace=False).tolist()
