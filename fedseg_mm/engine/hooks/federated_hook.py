"""Another place to state a federation."""
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class FederatedHook(Hook):
    """States a federation among ``custom_hooks``, for tools other than tools/fed_train.py.

    ``custom_hooks=[dict(type='FederatedHook', …)]`` with the keys of
    ``federated`` is the same as ``federated=dict(…)``:
    :class:`~fedseg_mm.engine.FederatedTrainLoop` makes the federation of it.

    Args:
        federated: The arguments of :class:`~fedseg_mm.federation.Federation`.
    """

    def __init__(self, **federated) -> None:
        self.federated = federated
