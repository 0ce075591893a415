"""What every attack is: what a hostile client sends instead of its update, or trains on instead of its labels."""
from collections.abc import Mapping

import torch
from torch import Tensor


class HonestUpdates:
    """Mean and spread of a round's honest updates, which colluding clients are assumed to know.

    Two sets of tensors are held, however many clients there are.
    """

    def __init__(self) -> None:
        self.count = 0
        self._sum: dict[str, Tensor] = {}
        self._squares: dict[str, Tensor] = {}

    def add(self, delta: Mapping[str, Tensor]) -> None:
        """Take one update in: local minus received weights, by name."""
        values = [tensor.double() for tensor in delta.values()]
        if not self.count:
            self._sum = {name: torch.zeros_like(value) for name, value in zip(delta, values)}
            self._squares = {name: torch.zeros_like(value) for name, value in zip(delta, values)}
        self.count += 1
        torch._foreach_add_([self._sum[name] for name in delta], values)
        torch._foreach_addcmul_([self._squares[name] for name in delta], values, values)

    def mean(self) -> dict[str, Tensor]:
        """The mean of each number, float64."""
        return {name: total / self.count for name, total in self._sum.items()}

    def std(self) -> dict[str, Tensor]:
        """The standard deviation of each number over the clients (population), float64."""
        return {name: (self._squares[name] / self.count - (total / self.count)**2).clamp_(min=0).sqrt_()
                for name, total in self._sum.items()}


class Attack:
    """An attack of :class:`~fedseg_mm.engine.backends.HostileBackend`; a subclass overrides one of two steps.

    Only the trained weights are attacked: statistics of batch normalisation,
    of which a hostile client could send senseless ones, are left as they are,
    as are a method's extras.
    """

    #: Whether it must know the honest updates of the round: hostile clients then train last.
    needs_honest = False

    def delta(self, delta: dict[str, Tensor], honest: HonestUpdates, cohort: int, hostile: int,
              generator: torch.Generator) -> Mapping[str, Tensor]:
        """What is sent instead of a delta.

        Args:
            delta (dict[str, Tensor]): Local minus received weights of the
                client, had it been honest; may be overwritten.
            honest (HonestUpdates): Those of this round; empty unless
                :attr:`needs_honest`.
            cohort (int): Clients of the round.
            hostile (int): How many of them are hostile.
            generator (torch.Generator): For random numbers, on the CPU.
        """
        return delta

    def labels(self, labels: Tensor, num_classes: int) -> Tensor:
        """What is trained on instead of a label map.

        Args:
            labels (Tensor): Classes of pixels; others, such as void, must
                stay.
            num_classes (int): Classes of the data set.
        """
        return labels
