"""The figure that papers report: the mean of the last evaluations."""
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class MeanEvaluationHook(Hook):
    """Logs the mean of the last evaluations at the end of a training.

    A single evaluation of a federated model depends on who was in the last
    cohort; FedSeg therefore reports the mean of the last five. The figures
    are kept in checkpoints, so that ``--resume`` goes on with them.

    Args:
        last (int): Evaluations to average. Defaults to 5.
    """
    KEY = 'last_evaluations'

    def __init__(self, last: int = 5) -> None:
        self.last = last

    def after_val_epoch(self, runner, metrics: dict[str, float] | None = None) -> None:
        if not metrics or not runner._train_loop or isinstance(runner._train_loop, dict):
            return  # no training, or a test
        history = runner.message_hub.runtime_info.get(self.KEY, [])
        entry = dict(round=runner.epoch, **{name: float(value) for name, value in metrics.items()})
        kept = [one for one in history if one['round'] < runner.epoch] + [entry]
        runner.message_hub.update_info(self.KEY, kept[-self.last:])

    def after_train(self, runner) -> None:
        history = runner.message_hub.runtime_info.get(self.KEY, [])
        if len(history) < 2:  # of one, the table above says it
            return
        names = [name for name in history[-1] if name != 'round' and all(name in one for one in history)]
        means = ', '.join(f'{name} {sum(one[name] for one in history) / len(history):.2f}' for name in names)
        rounds = ', '.join(str(one['round']) for one in history)
        runner.logger.info(f'Mean of the evaluations after rounds {rounds}: {means}')
