"""A page that shows the results of runs."""
import os.path as osp
from pathlib import Path

from fedseg_mm.cli import arguments
from fedseg_mm.cli.common import one_sentence_errors
from fedseg_mm.errors import Faults, FedSegError
from fedseg_mm.report import RunRecord, write_report


def run_names(folders: list[Path]) -> list[str]:
    """The folders' own names; with as many of those above as it takes to tell them apart."""
    parts = [Path(osp.abspath(folder)).parts for folder in folders]
    depth = 1
    while len({one[-depth:] for one in parts}) < len({*parts}) and depth < max(map(len, parts)):
        depth += 1
    return ['/'.join(one[-depth:]) for one in parts]


def main(argv: list[str] | None = None) -> None:
    args = arguments.report(argv)
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
