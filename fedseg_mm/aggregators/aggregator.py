"""Base of the aggregators: how the updates of a cohort become one."""
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping

from torch import Tensor


class Aggregator(ABC):
    """Combines the updates of a cohort, ``federated.aggregator`` in a config.

    A round is ``begin``, ``add`` for each update as it arrives, ``all_reduce``
    where several processes train, and ``result``. An algorithm that sends a
    second quantity (SCAFFOLD) has a second aggregator of the same kind for
    it. Floating point tensors are combined, integers keep the greatest value.
    """

    #: Whether it leaves out the extremes of each coordinate, which are nearly all that sparse updates hold.
    drops_extremes = False

    def __init__(self) -> None:
        #: Sum of the weights of the updates so far; where all count 1, their number.
        self.total = 0.0

    @property
    def min_updates(self) -> int:
        """Updates that it needs; in a round with fewer, the global model stays as it is. Defaults to 1."""
        return 1

    def check_cohort(self, size: int) -> None:  # noqa: B027  most have nothing to refuse
        """Refuse a round of too few updates; called before training starts.

        Args:
            size (int): Updates of a round, ``federated.clients_per_round``.

        Raises:
            FedSegError: The method needs more; says what to change.
        """

    def begin(self, reference: Mapping[str, Tensor] | None,  # noqa: B027  most need not know
              compared: Collection[str] | None = None) -> None:
        """Say what the updates of this round start from.

        Args:
            reference (Mapping[str, Tensor], optional): What every client was
                given, to be read during the round only; None where updates
                are changes already, so that they start from zero.
            compared (Collection[str], optional): Names of the tensors that
                lengths and distances of updates are measured by: the trained
                weights, and not the statistics of batch normalisation. None
                for all floating point tensors.
        """

    @abstractmethod
    def add(self, tensors: Mapping[str, Tensor], weight: float) -> None:
        """Take one update in.

        Args:
            tensors (Mapping[str, Tensor]): What the client sent; live tensors
                of a model, to be read or copied, never kept.
            weight (float): The weight that the algorithm gives it, positive.

        Raises:
            ValueError: The weight is not positive.
        """

    @abstractmethod
    def all_reduce(self, like: Mapping[str, Tensor]) -> None:
        """Join what the processes of a client-parallel run have taken in; the same in each of them afterwards.

        Args:
            like (Mapping[str, Tensor]): Tensors of the names, shapes and
                device of an update, for a process that has none.
        """

    @abstractmethod
    def result(self, reuse: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Return the combination and start over.

        Args:
            reuse (dict[str, Tensor], optional): Tensors of the same names and
                shapes, no longer needed, to hold the next result.

        Raises:
            ValueError: Nothing was added.
        """

    def discard(self) -> None:
        """Discard what was added in a round that failed."""
        if self.total:
            self.result()

    @staticmethod
    def check_weight(weight: float) -> None:
        if not weight > 0:
            raise ValueError(f'the weight of an update must be positive, but is {weight}')
