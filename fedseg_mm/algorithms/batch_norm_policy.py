"""How a federation treats batch normalisation: the policies that every algorithm can use."""
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fedseg_mm.registry import BATCH_NORM_POLICIES


class BatchNormPolicy:
    """A choice of ``federated.algorithm.batch_norm``; the global model has usable statistics with any of them."""

    #: For the log, after "Batch normalisation:", and for the checkpoint, which is resumed with the same words alone.
    description: str
    #: Whether the statistics are recomputed after every round, over the images of its cohort.
    recalibrates = False
    #: Whether it makes no difference to a model without batch normalisation, which the user should be told.
    changes_nothing_without_layers = True

    def is_shared(self, name: str, module: nn.Module) -> bool:
        """Whether a tensor follows the global model, or stays with the client from round to round.

        Args:
            name (str): Name of the parameter or buffer in its module.
            module (nn.Module): The module that owns it.
        """
        return True


@BATCH_NORM_POLICIES.register_module('average')
class AverageBatchNorm(BatchNormPolicy):
    """Weights and statistics are averaged, as FedSeg does."""
    description = 'weights and statistics are averaged over the clients'
    changes_nothing_without_layers = False


@BATCH_NORM_POLICIES.register_module('local_statistics')
class LocalStatistics(BatchNormPolicy):
    """SiloBN's (Andreux et al., DCL 2020): clients keep their statistics."""
    description = 'every client keeps its statistics; the checkpoint holds the mean of those of the last cohort'

    def is_shared(self, name: str, module: nn.Module) -> bool:
        return not isinstance(module, _BatchNorm) or name in ('weight', 'bias')


@BATCH_NORM_POLICIES.register_module('local')
class LocalBatchNorm(BatchNormPolicy):
    """FedBN's (Li et al., ICLR 2021): clients keep whole layers."""
    description = 'every client keeps its layers; the checkpoint holds the mean of those of the last cohort'

    def is_shared(self, name: str, module: nn.Module) -> bool:
        return not isinstance(module, _BatchNorm)


@BATCH_NORM_POLICIES.register_module('recalibrate')
class RecalibratedBatchNorm(BatchNormPolicy):
    """Statistics of the averaged weights, instead of averaged statistics."""
    description = 'statistics are computed anew with the averaged weights, over the images of the last cohort'
    recalibrates = True
