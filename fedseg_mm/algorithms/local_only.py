"""The lower bound: every client on its own."""
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fedseg_mm.algorithms.fedavg import FedAvg
from fedseg_mm.registry import ALGORITHMS


@ALGORITHMS.register_module()
class LocalOnly(FedAvg):
    """No federation: every client trains a model of its own, from the same start and in the same rounds.

    An evaluation covers every client's model, and its figures are their mean
    and spread (:class:`~fedseg_mm.engine.ClientsValLoop`). The models
    are kept on disk, in ``clients/`` of the work dir. The global model, which
    a checkpoint holds, stays the initial one.
    """

    #: What tools/fed_train.py evaluates with.
    val_loop = 'ClientsValLoop'
    is_bound = True

    def __init__(self) -> None:
        super().__init__()

    def is_shared(self, name: str, module: nn.Module) -> bool:
        return False

    def server_update(self, weights: Mapping[str, Tensor], mean: dict[str, Tensor], total: float) -> None:
        torch._foreach_copy_(list(mean.values()), [weights[name] for name in mean])
