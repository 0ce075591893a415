"""Base of the update processors: a change to an update before it leaves, or to the combined update."""
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedseg_mm.seeding import derive_seed


@dataclass(frozen=True)
class ProcessorContext:
    """The client and the round that an update belongs to.

    Args:
        seed (int): Seed of the run.
        round (int): The round, from 0.
        client (int): The client's id.
        trained (frozenset[str]): Names of the trained parameters. An update
            holds other tensors too, such as the statistics of batch
            normalisation.
        weight (float): The weight of the update in the mean.
        state (dict[str, Tensor]): What the processor keeps for this client
            from round to round, on disk; empty at first. Processors replace
            its entries.
    """
    seed: int
    round: int
    client: int
    trained: frozenset[str]
    weight: float
    state: dict[str, Tensor] = field(default_factory=dict)


class UpdateProcessor:
    """Processes updates, one entry of ``federated.processors`` in a config.

    A client's update is a ``delta``: floating point tensors, local minus
    received. It goes through :meth:`at_client` at the client and, as the
    payload that was sent, through :meth:`at_receipt` at the server; what that
    returns is aggregated. The combined change goes through :meth:`at_server`.
    A processor overrides the steps that it needs; by default each returns what
    it was given.
    """

    #: Whether the payload is encoded: other keys, types or shapes than the delta's. Such a processor comes last.
    encodes = False
    #: Whether the processor is correct only if all updates have weight 1 in the mean.
    needs_equal_weights = False
    #: Whether less than half of an update's entries are sent, the others being zero.
    is_sparse = False

    def __init__(self) -> None:
        #: Seed of the run, for randomness at the server.
        self.seed: int | None = None

    def setup(self, seed: int) -> None:
        """Take the seed of the run, before training."""
        self.seed = seed

    def at_client(self, delta: dict[str, Tensor], context: ProcessorContext) -> dict[str, Tensor]:
        """Make the payload of a client's update.

        Args:
            delta (dict[str, Tensor]): The change of every tensor, by name. The
                processor may modify the tensors in place.
            context (ProcessorContext): The client and the round.

        Returns:
            dict[str, Tensor]: What is sent, tensors of any type; names other
            than those of ``delta`` only if the class :attr:`encodes`.
        """
        return delta

    def at_receipt(self, payload: dict[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Recover the delta from a payload, exactly or approximately.

        Args:
            payload (dict[str, Tensor]): What :meth:`at_client` returned.
            like (Mapping[str, Tensor]): Tensors with the names, shapes and
                types of the delta, such as the global model's; their values
                are not used.

        Returns:
            dict[str, Tensor]: The delta that is aggregated.
        """
        return payload

    def at_server(self, delta: dict[str, Tensor], total: float, round: int) -> dict[str, Tensor]:
        """Process the combined change, in place or into new tensors.

        In a client-parallel run every process calls this with the same
        arguments and must obtain the same result.

        Args:
            delta (dict[str, Tensor]): The aggregator's result minus the
                global model.
            total (float): The sum of the updates' weights; where all count 1,
                their number.
            round (int): The round, from 0.
        """
        return delta

    def metrics(self) -> dict[str, float]:
        """Figures for the log, over the updates that this process has seen since the last call."""
        return {}

    def state_dict(self) -> dict:
        """Server state that must survive a restart."""
        return {}

    def load_state_dict(self, state: dict) -> None:
        """Restore :meth:`state_dict`."""

    def generator(self, context: ProcessorContext, device: torch.device | str = 'cpu') -> torch.Generator:
        """The generator of this processor's random numbers for one client and round."""
        seed = derive_seed(context.seed, f'processor {type(self).__name__}', context.round, context.client)
        return torch.Generator(device).manual_seed(seed)

    def _key(self, argument: str) -> str:
        """The config's key of an argument, for error messages."""
        return f'federated.processors.{type(self).__name__}.{argument}'
