"""Convolutions on tensors whose channels lie next to each other."""
from itertools import chain

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Keeps the model's weights, and with them all features, in torch's ``channels_last`` format.

    The same numbers in another order in memory: how much faster training gets
    depends on the model and the device, see docs/performance.md. It is used
    while a model is trained; checkpoints load with and without it::

        custom_hooks = [dict(type='ChannelsLastHook')]
    """

    priority = 'ABOVE_NORMAL'  # before the FederatedHook takes the weights

    def before_train(self, runner) -> None:  # after initialisation, which would draw in another order
        for tensor in chain(runner.model.parameters(), runner.model.buffers()):
            if tensor.ndim == 4:
                tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
