"""What half an hour on a GPU is to answer, in three parts of at most ten minutes; see docs/gpu_runs.md.

    bash benchmarks/gpu_right.sh        # is it right?
    bash benchmarks/gpu_fast.sh         # is it fast?
    bash benchmarks/gpu_real.sh         # what does the paper's protocol take?

A part is a list of steps. What is finished is kept in the state folder: called again, also on another machine that has
this folder, a part goes on with the step that was not. At the end it prints one JSON with all figures, and writes it
beside the steps. --dry goes through the same on a CPU, small.
"""
import argparse
import json
import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from measure import machine

from fedseg_mm.files import write_json
from fedseg_mm.provenance import commit
from fedseg_mm.run_logs import RunLogs

ROOT = Path(__file__).resolve().parents[1]
#: Seconds that are left for a step at least, or it waits for the next call.
LEAST = 20


@dataclass(frozen=True)
class Step:
    """One command, and the figures that it leaves.

    Args:
        name (str): Its key in the JSON.
        command (list[str]): Arguments of Python.
        figures (Callable): Reads them, as a dict, when the command has ended.
        environment (dict[str, str]): Beside that of the process.
        may_fail (bool): Whether a command that ends with an error has figures
            too: tests that have failed.
        is_done (Callable): Whether nothing is left to do, for a command that
            goes on where it was. Defaults to always.
    """
    name: str
    command: list[str]
    figures: Callable[[], dict]
    environment: dict[str, str] = field(default_factory=dict)
    may_fail: bool = False
    is_done: Callable[[dict], bool] = lambda figures: True


def test_figures(file: Path) -> dict:
    """How many tests have passed, and which have not."""
    suite = ElementTree.parse(file).getroot()
    suite = suite if suite.tag == 'testsuite' else suite[0]
    count = {name: int(suite.get(name, 0)) for name in ('tests', 'failures', 'errors', 'skipped')}
    failed = [f'{case.get("classname")}::{case.get("name")}' for case in suite.iter('testcase')
              if case.find('failure') is not None or case.find('error') is not None]
    failures = count['failures'] + count['errors']
    return dict(passed=count['tests'] - failures - count['skipped'], failed=failures, skipped=count['skipped'],
                failed_tests=failed[:50])


def tests_step(name: str, state: Path, options: list[str], **environment: str) -> Step:
    file = state / f'{name}.xml'
    return Step(name, ['-m', 'pytest', '-q', f'--junitxml={file}', *options], lambda: test_figures(file), environment,
                may_fail=True)


def json_step(name: str, state: Path, script: str, options: list[str]) -> Step:
    """A script that takes ``--json FILE``."""
    file = state / f'{name}.part.json'
    return Step(name, [str(ROOT / 'benchmarks' / script), '--json', str(file), *options],
                lambda: json.loads(file.read_text()))


def right(state: Path, dry: bool, minutes: float) -> list[Step]:
    """Tests on the GPU, then those of the CPU on the stack of this machine."""
    if dry:
        return [tests_step('gpu_losses', state, ['-m', 'gpu', '-n', '0', 'tests/gpu/test_losses.py'],
                           FEDSEG_GPU_TESTS='cpu')]
    return [tests_step('gpu_losses', state, ['-m', 'gpu', '-n', '0', 'tests/gpu/test_losses.py',
                                             'tests/test_aggregators']),
            tests_step('gpu_runs', state, ['-m', 'gpu', '-n', '4', 'tests/gpu/test_runs.py']),
            tests_step('cpu_suite', state, ['-n', str(min(12, os.cpu_count() or 1))])]


def fast(state: Path, dry: bool, minutes: float) -> list[Step]:
    """The losses and the client switch, steps in all formats, loading, and rounds against stock training."""
    if dry:
        return [json_step('fold', state, 'run.py', ['--only', 'fold']), json_step('steps', state, 'gpu_steps.py', [])]
    device = ['--device', 'cuda']
    return [*(json_step(name, state, 'run.py', [*device, '--only', name])
              for name in ('back_ce', 'contrast', 'fold', 'client_switch')),
            *(json_step(f'steps_{name}', state, 'gpu_steps.py', [*device, '--only', name])
              for name in ('bisenetv2', 'deeplabv3', 'loading')),
            json_step('round_overhead', state, 'run.py', [*device, '--only', 'round_overhead'])]


def real(state: Path, dry: bool, minutes: float) -> list[Step]:
    """A row of the paper's table, as far as the time goes; dry, two rounds on drawn street scenes."""
    work_dir = state / 'work_dirs'
    protocol = 'losses' if dry else 'paper'
    options = ['--cfg-options', 'train_cfg.max_rounds=2', 'train_cfg.val_interval=1'] if dry else []
    command = [str(ROOT / 'tools' / 'reproduce.py'), '--protocol', protocol, '--rows', 'BackCE', '--splits', 'noniid1',
               '--seeds', '0', '--jobs', '1', '--minutes', f'{max(1.0, minutes - 1.5):g}', '--state',
               str(state / 'pieces'), '--work-dir', str(work_dir), '--results', str(state / 'results'), *options]

    def figures() -> dict:
        folder, = (folder for folder in (work_dir / protocol).iterdir() if folder.is_dir())
        logs = RunLogs(folder)
        # the first round of a process compiles and starts workers
        times = sorted(line['time'] for number, line in logs.rounds.items() if number > 1)
        return dict(
            rounds=len(logs.rounds), seconds_per_round=times[len(times) // 2] if times else None,
            mIoU={str(number): line['mIoU'] for number, line in sorted(logs.evaluations.items())},
            complete=any((state / 'results').rglob('BackCE*.json')))

    return [Step('paper_backce_noniid1', command, figures, is_done=lambda found: found['complete'])]


PARTS = dict(right=right, fast=fast, real=real)


def take(step: Step, seconds: float) -> dict | None:
    """Run a step, its output going where ours does; its figures, or None if it was not finished."""
    start = time.perf_counter()
    try:
        done = subprocess.run([sys.executable, '-W', 'ignore', *step.command], cwd=ROOT, timeout=seconds,
                              stdout=sys.stderr, env={**os.environ, 'PYTHONPATH': str(ROOT), **step.environment})
    except subprocess.TimeoutExpired:
        return None
    try:
        found = step.figures()
    except (OSError, ValueError, ElementTree.ParseError, KeyError) as error:
        found = dict(error=f'{type(error).__name__}: {error}')
    if done.returncode and not step.may_fail:
        found = dict(found, error=f'ended with {done.returncode}')
    return dict(found, wall_seconds=round(time.perf_counter() - start, 1))


def run(part: str, steps: list[Step], state: Path, seconds: float, device: str) -> dict:
    """Take all steps that are left and fit into the time; the figures of all that were taken."""
    end = time.perf_counter() + seconds
    file = state / f'{part}.json'
    kept = json.loads(file.read_text()) if file.is_file() else {}
    figures: dict[str, dict] = kept.get('figures', {})
    done: list[str] = kept.get('done', [])
    for place, step in enumerate(steps, 1):
        left = end - time.perf_counter()
        if step.name in done:
            continue
        if left < min(LEAST, seconds):
            break
        print(f'[{place}/{len(steps)}] {step.name}', file=sys.stderr, flush=True)
        found = take(step, left)
        if found is not None:
            figures[step.name] = found
            if 'error' not in found and step.is_done(found):
                done.append(step.name)
        _write(file, part, steps, figures, done, device)
    return _write(file, part, steps, figures, done, device)


def _write(file: Path, part: str, steps: list[Step], figures: dict, done: list[str], device: str) -> dict:
    content = dict(part=part, machine=machine(device), commit=commit(), left=[
        step.name for step in steps if step.name not in done], done=done, figures=figures)
    write_json(file, content)
    return content


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('part', choices=PARTS)
    parser.add_argument('--state', type=Path, default=Path('gpu_state'), help='folder of what is finished')
    parser.add_argument('--minutes', type=float, default=9.5, help='stop after so many (default: 9.5)')
    parser.add_argument('--dry', action='store_true', help='go through it on a CPU, small')
    args = parser.parse_args(argv)
    if not args.dry and not torch.cuda.is_available():
        sys.exit('there is no GPU: --dry goes through this on a CPU')
    state = (args.state / ('dry' if args.dry else 'gpu') / args.part).resolve()
    state.mkdir(parents=True, exist_ok=True)
    steps = PARTS[args.part](state, args.dry, args.minutes)
    content = run(args.part, steps, state, 60 * args.minutes, 'cpu' if args.dry else 'cuda')
    print(json.dumps(content, indent=1))
    if content['left']:
        print(f'Left: {", ".join(content["left"])}; the same command goes on.', file=sys.stderr)


if __name__ == '__main__':
    main()
