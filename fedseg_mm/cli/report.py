"""A page that shows what runs have come to."""
import argparse
import os.path as osp
from pathlib import Path

from fedseg_mm.cli.parser import ToolParser

EPILOG = """\
examples:
  one run            python tools/fed_report.py work_dirs/CONFIG
  several            python tools/fed_report.py work_dirs/first work_dirs/second --out comparison.html
  three seeds        python tools/fed_report.py work_dirs/seed0 work_dirs/seed1 work_dirs/seed2

The page holds its pictures and opens from disk without a network. It shows the final table; mIoU and pixel accuracy
over rounds and bytes; the IoU of every class; what each client did; seconds and bytes of every round; and the settings
in which the runs differ. Runs that differ in nothing but the seed get their mean and spread. Runs that still go on may
be shown too. The pictures are also PNG files, in a folder beside the page."""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = ToolParser('fed_report', 'Write a page that shows what runs have come to.', EPILOG)
    parser.add_argument('work_dirs', nargs='+', metavar='WORK_DIR', help='work dirs of trainings')
    parser.add_argument('--out', type=Path, help='the HTML file to write (default: report.html in the first WORK_DIR)')
    return parser.parse_args(argv)


def run_names(folders: list[Path]) -> list[str]:
    """The folders' own names; with as many of those above as it takes to tell them apart."""
    parts = [Path(osp.abspath(folder)).parts for folder in folders]
    depth = 1
    while len({one[-depth:] for one in parts}) < len({*parts}) and depth < max(map(len, parts)):
        depth += 1
    return ['/'.join(one[-depth:]) for one in parts]


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    from fedseg_mm.cli.common import one_sentence_errors  # what it imports takes seconds, which --help does not need
    from fedseg_mm.errors import Faults, FedSegError
    from fedseg_mm.report import RunRecord, write_report
    with one_sentence_errors('fed_report'):
        folders = [Path(name) for name in args.work_dirs]
        runs: list[RunRecord] = []
        faults = Faults()
        for folder, name in zip(folders, run_names(folders)):
            with faults:
                runs.append(RunRecord(folder, name))
        faults.report()
        page = args.out or folders[0] / 'report.html'
        if page.suffix.lower() not in ('.html', '.htm'):
            raise FedSegError(f'--out {page} must end in .html')
        print(f'Report       {write_report(runs, page)}')
