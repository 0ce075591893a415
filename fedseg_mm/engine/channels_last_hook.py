"""Convolutions on tensors whose channels lie next to each other."""
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Keeps the model's weights, and with them all features, in torch's ``channels_last`` format.

    The same arithmetic in another order in memory: what it is worth depends
    on the model and the device, see docs/performance.md. Checkpoints load
    with and without it::

        custom_hooks = [dict(type='ChannelsLastHook')]
    """

    priority = 'ABOVE_NORMAL'  # before the FederatedHook takes the weights

    def before_train(self, runner) -> None:  # after initialisation, which would draw in another order
        runner.model.to(memory_format=torch.channels_last)
