"""The upper bound: all clients' images in one place."""
from itertools import chain

from fedseg_mm.algorithms.fedavg import FedAvg
from fedseg_mm.datasets.partition import ClientShard, Partition, PooledShard
from fedseg_mm.errors import FedSegError
from fedseg_mm.registry import ALGORITHMS


@ALGORITHMS.register_module()
class Centralised(FedAvg):
    """No federation: one model is trained on the images of all clients of the partition.

    A round is ``local_epochs`` passes over all of them; the optimizer is
    reset in each round.

    Args:
        labels (str): 'full', every image with all its labels, or 'masked',
            every image as its client annotated it, which shows the cost of
            missing labels without that of the federation; use BackCELoss
            in the heads with it. Defaults to 'full'.
        kwargs: Arguments of :class:`FedAvg`.

    Raises:
        FedSegError: ``labels`` is neither.
    """

    pools_clients = True
    is_bound = True

    def __init__(self, labels: str = 'full', **kwargs) -> None:
        super().__init__(**kwargs)
        if labels not in ('full', 'masked'):
            raise FedSegError(f"federated.algorithm.labels must be 'full' or 'masked', but is {labels!r}")
        self.labels = labels

    def shards(self, partition: Partition) -> tuple[ClientShard, ...]:
        indices = tuple(chain.from_iterable(shard.indices for shard in partition.clients))
        classes = tuple(range(partition.num_classes))
        parts = partition.clients
        if self.labels == 'full':
            parts = tuple(ClientShard(shard.indices, classes, shard.name, shard.unannotated) for shard in parts)
        return (PooledShard(indices, classes, 'all clients', parts=parts), )
