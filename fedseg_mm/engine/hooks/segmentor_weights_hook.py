"""What a test takes from a checkpoint of a federated training."""
from mmengine.hooks import Hook


class SegmentorWeightsHook(Hook):
    """Leaves out weights that only the method's training needs, such as those of FedSeg's projection head.

    MMEngine would warn of them. ``tools/test.py`` registers it.
    """
    priority = 'LOWEST'  # after EMAHook has exchanged the weights

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        if not checkpoint.get('federated'):
            return
        own = {name.removeprefix('module.') for name in runner.model.state_dict()}
        weights = checkpoint['state_dict']
        for name in [name for name in weights if name.removeprefix('module.') not in own]:
            del weights[name]
