"""A server and three sites on one machine, from nothing: drawn scenes in folders of their own, and a training."""
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import cv2
import yaml
from prettytable import PrettyTable

from fedseg_mm.console import as_called
from fedseg_mm.datasets.street_scene_painter import CLASSES
from fedseg_mm.datasets.transforms.load_street_scene import paint_scene, scene_path
from fedseg_mm.errors import FedSegError
from fedseg_mm.report import RunRecord, write_report
from fedseg_mm.silos.kits import provision
from fedseg_mm.tool_process import ToolProcess

CONFIG = 'fedseg_mm::silos/upernet_street_scenes.py'
#: What each site annotates.
SITES = {
    'city': ('sky', 'building', 'road', 'sidewalk'),
    'depot': ('road', 'car', 'bus'),
    'park': ('sky', 'tree', 'person', 'pole', 'sign'),
}
SCENES = {'train': 40, 'val': 12}


def draw_site(folder: Path, seed: int) -> None:
    """Draw a site's images and masks, unless they are there."""
    for part, number in SCENES.items():
        for kind in ('images', 'masks'):
            (folder / part / kind).mkdir(parents=True, exist_ok=True)
        for index in range(number):
            image, mask = paint_scene(scene_path(part, index, (160, 120), seed))
            cv2.imwrite(str(folder / part / 'images' / f'{index:04}.png'), image)
            cv2.imwrite(str(folder / part / 'masks' / f'{index:04}.png'), mask)


def free_port(wanted: int) -> int:
    """The wanted port, or another where it is taken."""
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(('localhost', wanted))
        except OSError:
            one.bind(('localhost', 0))
        return one.getsockname()[1]


def demo(work_dir: Path, rounds: int, port: int) -> None:
    """Provision, start a server and three sites, train, and write a report.

    Raises:
        FedSegError: One of them has failed; says where to look.
    """
    if rounds < 1:
        raise FedSegError(f'--rounds must be at least 1, but is {rounds}')
    started = time.monotonic()
    work_dir = work_dir.resolve()
    shutil.rmtree(work_dir, ignore_errors=True)
    work_dir.mkdir(parents=True)
    print(f'Drawing the images of {len(SITES)} sites, and making certificates …', flush=True)
    kits = work_dir / 'federation'
    provision(kits, list(SITES), port=free_port(port))
    for seed, (name, annotates) in enumerate(SITES.items()):
        images = work_dir / 'images' / name
        draw_site(images, seed)
        folders = {part: dict(images=str(images / part / 'images'), masks=str(images / part / 'masks'))
                   for part in SCENES}
        (kits / 'sites' / name / 'site.yaml').write_text(
            yaml.safe_dump(dict(folders, annotates=list(annotates))), encoding='utf-8')
    own = ['-m', 'fedseg_mm', 'silo']
    with ExitStack() as stack:
        processes = [_running(stack, 'the server', [*own, 'serve', str(kits / 'server')], work_dir / 'server.log')]
        processes += [_running(stack, name, [*own, 'start', str(kits / 'sites' / name)], work_dir / f'{name}.log')
                      for name in SITES]
        training = [sys.executable, *own, 'train', CONFIG, '--kits', str(kits), '--work-dir', str(work_dir / 'train'),
                    '--cfg-options', f'train_cfg.max_rounds={rounds}']
        print('$', ' '.join(['fedseg_mm', *training[3:]]), flush=True)
        code = subprocess.call(training)
        for process in processes:
            process.check()
    if code:
        raise FedSegError(f'the training has failed; the logs of the sites are {work_dir}/federation/sites/*/run/*.log')
    table = PrettyTable(['site', 'annotates', 'images'])
    table.align = 'l'
    for name, annotates in SITES.items():
        table.add_row([name, ', '.join(annotates), SCENES['train']])
    print(table)
    print(f'Classes      {", ".join(CLASSES)}')
    report = write_report([RunRecord(work_dir / 'train', 'three sites')], work_dir / 'report.html')
    print(f'Report       {report}')
    print(f'Took         {time.monotonic() - started:.0f} s')
    print(as_called('Next: docs/silos.md; python tools/fed_silo.py --help'))


def _running(stack: ExitStack, title: str, command: list[str], log: Path) -> ToolProcess:
    # all sites share this machine's cores
    threads = str(max(1, (os.cpu_count() or 1) // len(SITES)))
    process = ToolProcess(title, command, log, {'OMP_NUM_THREADS': os.environ.get('OMP_NUM_THREADS', threads)})

    def end() -> None:
        process.process.send_signal(signal.SIGTERM)
        try:
            process.process.wait(20)
        except subprocess.TimeoutExpired:
            process.process.kill()

    stack.callback(end)
    return process
