"""A model wrapper for processes that train whole clients each."""
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODEL_WRAPPERS
from torch import nn


@MODEL_WRAPPERS.register_module()
class ClientParallel(nn.Module):
    """Passes everything on to the model, in the place of DistributedDataParallel.

    Processes train different clients, with different numbers of steps: there
    is nothing to exchange in a step, and waiting for each other would hang.
    Synchronised batch normalisation becomes the ordinary one.

    Args:
        module (nn.Module): The model.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = revert_sync_batchnorm(module)

    def forward(self, *args, **kwargs):
        return self.module(*args, **kwargs)

    def train_step(self, *args, **kwargs):
        return self.module.train_step(*args, **kwargs)

    def val_step(self, *args, **kwargs):
        return self.module.val_step(*args, **kwargs)

    def test_step(self, *args, **kwargs):
        return self.module.test_step(*args, **kwargs)
