"""The evaluation that a checkpoint does not know of."""
from mmengine.hooks import Hook


class ResumedEvaluationHook(Hook):
    """Evaluates a resumed round, if the uninterrupted run evaluated it.

    MMEngine writes a checkpoint before it evaluates the same round, so that
    whoever resumes has lost the figure. Best scores and means over
    evaluations are then those of the uninterrupted run.
    FederatedTrainLoop registers it.
    """
    priority = 'LOWEST'  # after all that other hooks do before training

    def before_train(self, runner) -> None:
        loop = runner.train_loop
        if loop.started_at > 0 and loop.evaluates(loop.started_at):
            runner.logger.info(f'Round {loop.started_at} is evaluated, as it was before the interruption.')
            runner.val_loop.run()
