"""What a run logs about itself at its start and end."""
import shlex
from pathlib import Path

import numpy as np
from mmengine.hooks import CheckpointHook, Hook
from torch import nn

from fedseg_mm.console import as_called
from fedseg_mm.datasets.partition_summary import number_range

#: Clients that are named at the start.
MOST_NAMED = 12


class RunSummaryHook(Hook):
    """Says who trains what at the start, and the outcome at the end.

    FederatedTrainLoop registers it.
    """
    priority = 'LOWEST'  # after the last checkpoint is written

    def before_train(self, runner) -> None:
        federation, loop = runner.train_loop.federation, runner.train_loop
        names = [federation.client_name(client) for client in range(len(federation.shards))]
        sizes = np.array([len(shard.indices) for shard in federation.shards])
        classes = federation.summary.class_names
        annotated = sorted({len(shard.classes) for shard in federation.shards})
        for line in (
                f'Clients      {_some(names)}: {sizes.sum()} images, {number_range(sizes.tolist())} each; of the '
                f'{len(classes)} classes, each annotates {number_range(annotated)}',
                f'Method       {type(federation.algorithm).__name__}, {type(federation.make_aggregator()).__name__}; '
                f'{_number(loop.max_epochs, "round")} of {_number(_in_a_round(federation), "client")}, '
                f'{_number(federation.local_epochs, "local epoch")} of batches of '
                f'{runner.cfg.train_dataloader.batch_size}',
                f'Model        {_describe(federation.model)}',
                f'Work dir     {runner.work_dir}; the whole config and the environment are in the log there'):
            runner.logger.info(line)

    def after_train(self, runner) -> None:
        known = runner.message_hub.runtime_info
        last = known.get('last_ckpt')
        if not last:
            return
        lines = [f'Checkpoint   {last}, after round {runner.epoch}']
        best = None
        for name in next((hook.key_indicators for hook in runner.hooks if isinstance(hook, CheckpointHook)
                          and hook.save_best), ()):
            score, path = (known.get(key, known.get(f'{key}_{name}')) for key in ('best_score', 'best_ckpt'))
            if path:
                lines.append(f'Best         {path}, {name} {score:.2f}')
                best = best or path
        # the copy that MMEngine writes, with all that the command line has added
        config = Path(runner.work_dir) / Path(runner.cfg.filename or f'{runner.timestamp}.py').name
        lines.append(f'Evaluate     {as_called("python tools/test.py")} {shlex.join([str(config), str(best or last)])}')
        for line in lines:
            runner.logger.info(line, extra={'of_the_end': True})


def _in_a_round(federation) -> int:
    """Clients of a round, as far as it is known before: a sampler may take all, or another number each time."""
    return getattr(federation.sampler, 'clients_per_round', federation.clients_per_round)


def _number(number: int, what: str) -> str:
    return f'{number} {what}{"s" * (number != 1)}'


def _some(names: list[str]) -> str:
    shown = names if len(names) <= MOST_NAMED else [*names[:MOST_NAMED - 2], '…', names[-1]]
    return f'{len(names)} ({", ".join(shown)})'


def _describe(model: nn.Module) -> str:
    parts = [type(part).__name__ for name in ('backbone', 'neck', 'decode_head')
             if (part := getattr(model, name, None)) is not None]
    learns = sum(p.numel() for p in model.parameters() if p.requires_grad)
    size = sum(tensor.nbytes for tensor in model.state_dict().values())
    return (f'{" + ".join(parts) or type(model).__name__}, {learns:,} trainable parameters, '
            f'{size / 1e6:.1f} MB')
