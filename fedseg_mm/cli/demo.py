"""The demo: what FedSeg's BackCE does, on the built-in data set, in minutes on a CPU."""
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from mmengine.config import Config
from mmseg.registry import DATASETS
from prettytable import PrettyTable
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from fedseg_mm.cli import arguments
from fedseg_mm.cli.common import one_sentence_errors
from fedseg_mm.config import find_config, short_path, tool
from fedseg_mm.console import as_called
from fedseg_mm.datasets import StreetScenesDataset
from fedseg_mm.datasets.transforms.load_street_scene import paint_scene
from fedseg_mm.errors import FedSegError
from fedseg_mm.report import RunRecord, write_report
from fedseg_mm.tool_process import ToolProcess
from fedseg_mm.visualization import draw_comparison

ROWS = {'ce': 'plain cross-entropy', 'backce': 'BackCE'}
CONFIG = 'fedseg_mm::fedavg/upernet_streetscenes_noniid1_{row}.py'
#: Evaluated scenes that the picture shows.
SHOWN = (3, 0, 16, 23)


@dataclass
class Job:
    """A run of one of the tools, beside the others, with its output in a file.

    Args:
        title (str): What people read.
        command (list[str]): The tool and its arguments.
        log (Path): Where its output goes.
        done (Callable[[], int]): Counts the finished steps.
        total (int): Steps in all.
    """
    title: str
    command: list[str]
    log: Path
    done: Callable[[], int]
    total: int

    def start(self) -> ToolProcess:
        print('$ python', *self.command, flush=True)
        self.log.unlink(missing_ok=True)
        # as many jobs as rows run at once and share the cores
        threads = max(1, (os.cpu_count() or 1) // len(ROWS))
        return ToolProcess(self.title, self.command, self.log,
                           {'OMP_NUM_THREADS': os.environ.get('OMP_NUM_THREADS', str(threads))})


def run(jobs: list[Job]) -> None:
    """Run jobs side by side and show how far they are.

    Raises:
        FedSegError: One failed; the others are stopped.
    """
    started = time.perf_counter()
    columns = TextColumn('{task.description}'), BarColumn(), TextColumn('{task.completed}/{task.total}')
    processes = [job.start() for job in jobs]
    with Progress(*columns, TimeRemainingColumn(), transient=True, disable=not sys.stdout.isatty()) as bars:
        tasks = [bars.add_task(job.title, total=job.total) for job in jobs]
        try:
            while not all(process.ended for process in processes):
                time.sleep(0.2)
                for job, task, process in zip(jobs, tasks, processes):
                    bars.update(task, completed=job.done())
                    process.check()
            for process in processes:
                process.check()
        finally:  # if this one was interrupted, those are too
            for process in processes:
                process.stop()
    print(f'  {time.perf_counter() - started:.0f} s', flush=True)


def newest(folder: Path, pattern: str) -> Path | None:
    """The file of the latest run, if there is one; MMEngine names folders by time."""
    return max(folder.glob(pattern), default=None)


def read_newest(folder: Path, pattern: str) -> str:
    """What the file of the latest run says.

    Raises:
        FedSegError: There is none.
    """
    path = newest(folder, pattern)
    if path is None:
        raise FedSegError(f'{folder} has no file {pattern}: remove the folder and run the demo again')
    return path.read_text()


def read_map(path: Path) -> np.ndarray:
    """A predicted label map.

    Raises:
        FedSegError: It cannot be read.
    """
    found = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if found is None:
        raise FedSegError(f'the prediction {path} cannot be read: remove its folder and run the demo again')
    return found


def training(row: str, config: str, folder: Path, rounds: int) -> Job:
    """The training of one row."""
    before = newest(folder, '*/vis_data/rounds.json')

    def done() -> int:
        log = newest(folder, '*/vis_data/rounds.json')
        return 0 if log in (None, before) else len(log.read_text().splitlines())

    return Job(f'training with {ROWS[row]}', [tool('fed_train'), config, '--work-dir', str(folder), '--cfg-options',
                                              f'train_cfg.max_rounds={rounds}'], folder / 'train.log', done, rounds)


def evaluation(row: str, config: str, folder: Path, checkpoint: Path, number: int) -> Job:
    """The evaluation of one row's checkpoint; its label maps go into a folder."""
    maps, started = folder / 'predictions', time.time()

    def done() -> int:
        return sum(path.stat().st_mtime >= started for path in maps.glob('*.png'))

    return Job(f'evaluation with {ROWS[row]}', [tool('test'), config, str(checkpoint), '--work-dir',
                                                str(folder / 'test'), '--out', str(maps)], folder / 'test.log', done,
               number)


def curve(folder: Path) -> list[tuple[int, float]]:
    """Round and mIoU of every evaluation during the latest training."""
    lines = [json.loads(line) for line in read_newest(folder, '*/vis_data/scalars.json').splitlines()]
    return [(line['step'], line['mIoU']) for line in lines if 'mIoU' in line]


def main(argv: list[str] | None = None) -> None:
    args = arguments.demo(argv)
    with one_sentence_errors('demo'):
        if args.rounds is not None and args.rounds < 1:
            raise FedSegError(f'--rounds must be at least 1, but is {args.rounds}')
        work_dir = Path(args.work_dir)
        configs = {row: short_path(Path(find_config(CONFIG.format(row=row))).resolve()) for row in ROWS}
        cfg = Config.fromfile(configs['ce'])
        rounds = args.rounds or cfg.train_cfg.max_rounds
        run([training(row, configs[row], work_dir / row, rounds) for row in ROWS])
        checkpoints = {row: work_dir / row / f'round_{rounds}.pth' for row in ROWS}
        scenes = DATASETS.build({**cfg.test_dataloader.dataset, 'pipeline': []})
        run([evaluation(row, configs[row], work_dir / row, checkpoints[row], len(scenes)) for row in ROWS])
        figures = {row: json.loads(read_newest(work_dir / row / 'test', '*/*.json')) for row in ROWS}

        table = PrettyTable(['one annotated class per client', 'mIoU', 'pixel accuracy'])
        table.align = 'r'
        for row, name in ROWS.items():
            table.add_row([f'FedAvg with {name}', f'{figures[row]["mIoU"]:.1f}', f'{figures[row]["aAcc"]:.1f}'])
        picture = work_dir / 'demo.png'
        draw(scenes, work_dir, picture)
        print(table)
        print(f'Picture      {picture}')
        report = write_report([RunRecord(work_dir / row, f'FedAvg with {name}') for row, name in ROWS.items()],
                              work_dir / 'report.html')
        print(f'Report       {report}')
        for title, paths in (('Checkpoints', checkpoints.values()),
                             ('Logs', [newest(work_dir / row, '2*/*.log') for row in ROWS])):
            print(f'{title:13s}' + '  '.join(map(str, paths)))
        print(as_called('Next: README.md, "Your own images"; python tools/fed_train.py --help'))


def draw(scenes: StreetScenesDataset, work_dir: Path, picture: Path) -> None:
    """The curves, and predictions beside the truth."""
    rows = []
    for index in SHOWN:
        path = scenes.get_data_info(index)['img_path']
        image, truth = paint_scene(path)
        predictions = [read_map(work_dir / row / 'predictions' / Path(path).name) for row in ROWS]
        rows.append((np.ascontiguousarray(image[..., ::-1]), truth, *predictions))
    draw_comparison({f'FedAvg with {name}': curve(work_dir / row) for row, name in ROWS.items()}, rows,
                    ('image', 'truth', *(f'with {name}' for name in ROWS.values())), scenes.metainfo['classes'],
                    scenes.metainfo['palette'], picture)
