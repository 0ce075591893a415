"""MMEngine's checkpoint hook, which never leaves a work dir without a whole checkpoint."""
import os.path as osp
from typing import Any

from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS


class _RemoveLater:
    """A file backend that removes files when it is told that their successor is written."""

    def __init__(self, backend) -> None:
        self.backend = backend
        self.files: list[str] = []

    def __getattr__(self, name: str):
        return getattr(self.backend, name)

    def remove(self, path: str) -> None:
        self.files.append(path)

    def remove_now(self, but: set[str | None]) -> None:
        """Remove them; a name that was written anew stays."""
        files, self.files = self.files, []
        for path in files:
            if path not in but and self.backend.isfile(path):
                self.backend.remove(path)


@HOOKS.register_module()
class WholeCheckpointHook(CheckpointHook):
    """Removes an old checkpoint once the new one is on disk, and knows which one was written last.

    FederatedTrainLoop puts it in the place of MMEngine's CheckpointHook; the
    arguments, the files and their names are the same.
    """

    file_backend: Any
    #: The rounds behind the checkpoint that this run wrote last.
    saved = 0

    @classmethod
    def of(cls, hook: CheckpointHook) -> 'WholeCheckpointHook':
        """The same hook, with its settings."""
        own = cls.__new__(cls)
        own.__dict__.update(hook.__dict__)
        return own

    def before_train(self, runner) -> None:
        super().before_train(runner)
        self.file_backend = _RemoveLater(self.file_backend)
        # of a work dir that was moved or copied, a checkpoint names files of the old one
        for name in [name for name in runner.message_hub.runtime_info if name.startswith('best_ckpt')]:
            path = runner.message_hub.get_info(name)
            if path is not None:
                runner.message_hub.update_info(name, osp.join(self.out_dir, osp.basename(path)))
        if getattr(self, 'best_ckpt_path', None) is not None:
            self.best_ckpt_path = runner.message_hub.get_info('best_ckpt')
        for key, path in getattr(self, 'best_ckpt_path_dict', {}).items():
            if path is not None:
                self.best_ckpt_path_dict[key] = runner.message_hub.get_info(f'best_ckpt_{key}')

    def save(self, runner, rounds: int) -> None:
        """Write a checkpoint of the rounds that are finished."""
        self._save_checkpoint_with_step(runner, rounds, dict(epoch=rounds, iter=rounds))

    def _save_checkpoint_with_step(self, runner, step, meta) -> None:
        super()._save_checkpoint_with_step(runner, step, meta)
        self.saved = step
        self._remove_replaced()

    def _save_best_checkpoint(self, runner, metrics) -> None:
        super()._save_best_checkpoint(runner, metrics)
        self._remove_replaced()

    def _remove_replaced(self) -> None:
        best = [getattr(self, 'best_ckpt_path', None), *getattr(self, 'best_ckpt_path_dict', {}).values()]
        self.file_backend.remove_now(but={self.last_ckpt, *best})
