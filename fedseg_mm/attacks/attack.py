"""Base of the attacks: what hostile clients send, or learn from, instead of the truth."""
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedseg_mm.errors import FedSegError
from fedseg_mm.validation import check_number


@dataclass
class HonestUpdates:
    """Mean and spread of what the honest clients of a round have sent, for attackers who see it all.

    Args:
        number (int): Honest updates.
        num_hostile (int): Updates that colluding clients are to send.
        mean (Mapping[str, Tensor]): Mean change of every trained tensor.
        std (Mapping[str, Tensor]): Its standard deviation over the clients,
            with the number of clients as denominator.
    """
    number: int
    num_hostile: int
    mean: Mapping[str, Tensor] = field(default_factory=dict)
    std: Mapping[str, Tensor] = field(default_factory=dict)


class Attack:
    """Hostile clients of one kind, an entry of ``federated.attacks`` in a config, for measuring a defence.

    An attack overrides one of three: :meth:`alter`, which changes what a
    client sends; :meth:`craft`, where the clients collude and know what the
    others have sent; :meth:`relabel`, which changes what a client learns from.

    Only what the model learns is changed, and what a method sends beside it:
    a false variance of batch normalisation would end the model at once, under
    any aggregator that is not told of it.

    Args:
        share (float, optional): The share of all clients that is hostile, in
            (0, 1]; they are drawn from the run's seed, and a greater share
            holds those of a smaller one.
        clients (Sequence[int or str], optional): The hostile clients, by
            number or name, instead of a share.

    Raises:
        FedSegError: Not exactly one of the two is given, or it is not as
            described.
    """

    #: Whether the clients send what :meth:`craft` makes of the honest updates.
    colludes = False

    def __init__(self, share: float | None = None, clients: Sequence[int | str] | None = None) -> None:
        if (share is None) == (clients is None):
            raise FedSegError(f'{self._key("share")} or {self._key("clients")} must say who is hostile: give one of '
                              'the two')
        if share is not None:
            check_number(self._key('share'), share, above=0, most=1)
        if clients is not None and (not isinstance(clients, (list, tuple)) or not clients or not all(
                isinstance(client, (int, str)) and not isinstance(client, bool) for client in clients)):
            raise FedSegError(f'{self._key("clients")} must be a list of client numbers or names, but is {clients!r}')
        self.share, self.clients = share, clients

    def alter(self, change: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """What a hostile client sends.

        Args:
            change (dict[str, Tensor]): The honest change, floating point
                tensors by name; may be modified in place.
            generator (torch.Generator): Of this client and round, on the CPU.
        """
        return change

    def craft(self, honest: HonestUpdates) -> dict[str, Tensor]:
        """What every colluding client of a round sends.

        Args:
            honest (HonestUpdates): What the others have sent.

        Returns:
            dict[str, Tensor]: New tensors, of the names of ``honest.mean``.
        """
        raise NotImplementedError

    def relabel(self, num_classes: int) -> tuple[int, ...] | None:
        """Which class each class is labelled as; None where labels are true."""
        return None

    def _key(self, argument: str) -> str:
        return f'federated.attacks.{type(self).__name__}.{argument}'
