"""Where the figures of a round go."""
import math
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import ValLoop

from fedseg_mm.checks import check_evaluation, first_process_first
from fedseg_mm.datasets.partition_summary import number_range
from fedseg_mm.engine.curve_backends import prepare_backends
from fedseg_mm.evaluation import ClassIoU, keep_class_iou
from fedseg_mm.structures import ClientFailure


class RoundLogHook(Hook):
    """Writes every round's :class:`~fedseg_mm.engine.round_log.RoundLog` to the console, rounds.json and curves.

    FederatedTrainLoop registers it.
    """

    #: On classes that the evaluation never sees.
    unseen: str | None = None
    #: IoU of every class, of the evaluations during the training.
    class_iou: ClassIoU | None = None

    def before_run(self, runner) -> None:
        """Say who the clients are, and check the evaluation's files too, before hours of training."""
        summary = runner.train_loop.federation.summary
        sizes, partition = summary.num_images, summary.partition
        runner.logger.info(
            f'Partition {partition.hash[:12]}: {len(sizes)} clients with {number_range(sizes)} images each, '
            f'{sum(sizes)} in all; manifest in {Path(runner.work_dir) / "partition.json"}')
        if runner.val_loop is not None:
            with first_process_first():
                self.unseen = check_evaluation(runner.val_dataloader, runner.val_loop.evaluator)
            # figures of another loop may be means over models
            if type(runner.val_loop) is ValLoop or getattr(runner.val_loop, 'evaluates_one_model', False):
                self.class_iou = keep_class_iou(runner.val_loop.evaluator, summary.annotated_classes)
        prepare_backends(runner.visualizer)

    def after_val_epoch(self, runner, metrics: dict[str, float] | None = None) -> None:
        """Say beside the mean which classes it is not about."""
        if self.unseen:
            runner.logger.info(self.unseen)  # MMEngine says a warning once only
        figures = self.class_iou.last() if self.class_iou is not None else {}
        if figures:
            runner.visualizer.add_scalars({f'IoU/{name}': value for name, value in figures.items()}, step=runner.epoch)

    def after_client(self, runner, update) -> None:
        if runner.train_loop.round_log.private:  # a client that fails would be named
            return
        client = runner.train_loop.federation.client_name(update.client)
        if isinstance(update, ClientFailure):
            runner.logger.warning(f'Round {runner.epoch + 1}: client {client} is left out: {update.reason}')
            return
        wrong = [name for name, value in update.metrics.items() if not math.isfinite(value)]
        terms = ', '.join([name for name in wrong if name != 'loss'] or wrong)
        if not update.is_finite:
            runner.logger.warning(f'Round {runner.epoch + 1}: the update of client {client} holds NaN or '
                                  f'infinite values and is left out{f" (so does {terms})" if terms else ""}.')
        elif terms:
            runner.logger.warning(f'Round {runner.epoch + 1}: {terms} of client {client} was NaN or infinite in '
                                  'a batch, but its weights are finite and are used.')

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        log = runner.train_loop.round_log
        # MMEngine's timer measured the wait before the round, which is none
        runner.message_hub.update_scalar('train/data_time', runner.train_loop.federation.backend.waited)
        runner.logger.info(log.sentence())
        if is_main_process():
            log.write(Path(runner.log_dir) / 'vis_data' / 'rounds.json', runner.message_hub.get_info('eta', None))
        runner.visualizer.add_scalars(log.flat(), step=runner.epoch + 1)
