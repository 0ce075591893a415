"""A finished run's figures."""
import json
from itertools import accumulate

from mmseg.registry import DATASETS

from fedseg_mm.checkpoints import load_weights_only
from fedseg_mm.errors import FedSegError
from fedseg_mm.run_logs import RunLogs, last_checkpoint
from reproduction.row_results import RowResults
from reproduction.run import Run

#: Evaluations that MeanEvaluationHook averages.
LAST = 5
METRICS = ('mIoU', 'aAcc')
PROVENANCE = ('commit', 'device', 'torch', 'mmseg', 'mmengine')


def collect(run: Run) -> dict:
    """The result of a run that is trained to the end.

    Evaluations are those of MMEngine's ``scalars.json``, which has what the
    metric returned, unrounded: IoUMetric itself rounds to two digits.

    Raises:
        FedSegError: The run's logs are incomplete.
    """
    logs, checkpoint = RunLogs(run.folder), last_checkpoint(run.folder)
    missing = sorted(set(range(1, run.rounds + 1)) - logs.rounds.keys())
    if checkpoint is None or missing or run.rounds not in logs.evaluations:
        what = f'round {missing[0]}' if missing else f'the evaluation after round {run.rounds}'
        raise FedSegError(f'{run.name} is trained, but its logs in {run.folder} lack {what}: remove the folder and '
                          'train anew')
    rounds = [logs.rounds[number] for number in range(1, run.rounds + 1)]
    evaluations = [
        dict(round=number, **{name: value for name, value in line.items() if name.split('_')[0] in METRICS})
        for number, line in sorted(logs.evaluations.items()) if number <= run.rounds
    ]
    last = evaluations[-LAST:]
    up, down = (list(accumulate(line[key] for line in rounds)) for key in ('bytes_up', 'bytes_down'))
    parts = json.loads((run.folder / 'parts.json').read_text(encoding='utf-8'))
    return dict(
        row=run.row, split=run.split, seed=run.seed, options=list(run.options),
        mean_of_last_five={name: sum(line[name] for line in last) / len(last) for name in METRICS},
        protocol=run.protocol.name,
        config=run.config_file if run.config_file == run.config else f'configs/{run.config}',
        config_hash=run.config_hash,
        partition=load_weights_only(str(checkpoint), 'cpu')['federated']['partition'],
        # of a run in several parts, each that differs
        **{key: ' | '.join(dict.fromkeys(part[key] for part in parts if part[key])) or None for key in PROVENANCE},
        amp=parts[-1]['amp'],
        evaluations=evaluations,
        rounds=[dict(round=line['round'], bytes_up=up[line['round'] - 1], bytes_down=down[line['round'] - 1])
                for line in evaluations],
        wall_time_s=round(sum(line['time'] for line in rounds) + _evaluation_time(run, logs), 1))


def _evaluation_time(run: Run, logs: RunLogs) -> float:
    """Seconds of all evaluations, of which MMEngine logs the mean over batches."""
    loader = run.cfg.val_dataloader
    images = len(DATASETS.build({**loader.dataset, 'pipeline': []}))
    batches = -(-images // loader.get('batch_size', 1))
    return batches * sum(line.get('time', 0) * logs.models.get(number, 1) for number, line in logs.evaluations.items())


def save_result(run: Run) -> dict:
    """Write the result of a run that is trained to the end; see :func:`collect`."""
    result = collect(run)
    RowResults(run.result_file).put(result)
    return result
