"""What every backend is: where clients train."""
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from torch.utils.data import DataLoader

from fedseg_mm.structures import Broadcast, ClientFailure, ClientUpdate

if TYPE_CHECKING:
    from fedseg_mm.federation import Federation


class Backend(ABC):
    """Trains the cohorts of a federation, ``federated.backend`` in a config.

    A run calls ``setup`` before the optimizer is built, ``start`` once the
    model's weights are there, and then ``train`` once a round.
    """

    #: The validation loop that goes with it, if not the config's.
    val_loop: str | None = None
    #: Seconds of the last round in which training waited for images.
    waited = 0.0

    @abstractmethod
    def setup(self, runner, dataloader: dict, federation: 'Federation') -> None:
        """Find out what the clients have, and tell it to ``federation.take_clients``.

        Args:
            runner (Runner): MMEngine's runner.
            dataloader (dict): The config's ``train_dataloader``.
            federation (Federation): Whose clients are to train.

        Raises:
            FedSegError: The data set, loader or model cannot be federated.
        """

    @property
    @abstractmethod
    def loader(self) -> DataLoader:
        """What MMEngine takes for the training's loader: its length is 1, as a round is one iteration."""

    @abstractmethod
    def start(self, runner, federation: 'Federation', rounds: int) -> None:
        """Get ready to train, with the weights and the optimizer in place.

        Args:
            runner (Runner): MMEngine's runner.
            federation (Federation): Whose clients are to train.
            rounds (int): Rounds of the whole run.
        """

    @abstractmethod
    def train(self, cohort: Sequence[int], broadcast: Broadcast) -> Iterator[ClientUpdate | ClientFailure]:
        """Train a cohort, and hand out what comes back as it comes.

        In a run of several processes, each hands out its share of the
        cohort.

        Args:
            cohort (Sequence[int]): The clients of the round.
            broadcast (Broadcast): What each of them gets.
        """

    def recalibrate(self, round: int, cohort: Sequence[int]) -> None:
        """Compute the model's statistics of batch normalisation anew, over the images of a cohort.

        Raises:
            NotImplementedError: The backend cannot.
        """
        raise NotImplementedError(f'{type(self).__name__} cannot recalibrate batch normalisation')

    def state_dict(self) -> dict:
        """What a checkpoint must know of the clients, such as whose state it belongs to."""
        return {}

    def load_state_dict(self, state: dict) -> None:  # noqa: B027
        """Restore :meth:`state_dict`, before :meth:`start`."""

    def abandon_round(self, rounds: int) -> None:  # noqa: B027
        """The round in progress will not be finished: clients have what they had after so many rounds."""

    def close(self) -> None:  # noqa: B027
        """Let go of processes and files; the training is over."""
