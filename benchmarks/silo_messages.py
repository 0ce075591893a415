"""What a round across two sites costs beside the training: messages of a model, there and back, over NVFLARE.

    python benchmarks/silo_messages.py                          # 44 MiB of weights, 30 rounds
    python benchmarks/silo_messages.py --mebibytes 2253 --rounds 1

A server and two sites of this machine, with certificates. A site's trainer unpacks the weights and sends them back at
once as its update, so that a round's seconds are all messages: packing, TLS, unpacking, checking, and the sum of the
updates. Memory is the resident memory of the server's job process and of the training's: the most in each ten rounds.
Goals: 5 s a round; memory in the last ten rounds at most 5 % above that of the ten before; bytes on the way at most 5 %
above those of the tensors.
"""
import argparse
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

import fedseg_mm  # noqa: F401
from fedseg_mm.aggregators import WeightedMean
from fedseg_mm.files import write_json
from fedseg_mm.silos import wire
from fedseg_mm.silos.desk import Desk
from fedseg_mm.silos.kits import nvflare_command, provision, site_name, write_policy
from fedseg_mm.silos.site_link import SiteLink
from fedseg_mm.silos.spool import Spool
from fedseg_mm.structures import Broadcast, ClientUpdate
from fedseg_mm.structures.messages import pack_tensors, unpack_tensors

SITES = ('north', 'south')
TENSORS = 60


def send_back(kit: Path) -> None:
    """Be a trainer that sends the weights back."""
    desk = Desk(Spool(wire.run_folder(kit) / 'spool'), site_name(kit))
    with wire.serve(kit / 'run' / 'trainer.sock', desk.answer):
        while True:
            task = desk.tasks.get()
            if task.kind == 'setup':
                desk.finish(task, b'{}')
                continue
            weights = unpack_tensors(desk.spool.read(task.inputs['weights']))
            desk.finish(task, ClientUpdate(task.args['client'], weights, 1, 1, {}).to_bytes())
            del weights


def memory(pid: int) -> float:
    """Resident memory in MB."""
    status = Path(f'/proc/{pid}/status').read_text()
    return int(next(line for line in status.splitlines() if line.startswith('VmRSS')).split()[1]) / 1e3


def job_process(kit: Path) -> int:
    """NVFLARE's process of the job at the server."""
    for entry in Path('/proc').iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / 'cmdline').read_bytes().decode(errors='replace')
            except OSError:
                continue
            if 'runner_process' in command and str(kit) in command:
                return int(entry.name)
    sys.exit('the job has no process')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--mebibytes', type=int, default=44, help='size of the weights (default: 44)')
    parser.add_argument('--rounds', type=int, default=30, help='rounds (default: 30)')
    parser.add_argument('--json', type=Path, help='also write the figures to this file')
    parser.add_argument('--trainer', type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.trainer:
        send_back(args.trainer)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # NVFLARE's processes are still ending
        measure(args, Path(folder) / 'federation')


def measure(args: argparse.Namespace, kits: Path) -> None:
    from fedseg_mm.silos.job import RelayJob
    provision(kits, SITES, port=8102)
    processes = []
    try:
        for kit in (kits / 'server', *(kits / 'sites' / name for name in SITES)):
            write_policy(kit)
            wire.run_folder(kit)
            command, environment = nvflare_command(kit)
            with (kit / 'run' / 'nvflare.log').open('w') as log:
                processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=kit / 'run'))
        for name in SITES:
            processes.append(subprocess.Popen([sys.executable, __file__, '--trainer', str(kits / 'sites' / name)],
                                              env={**os.environ, 'OMP_NUM_THREADS': '1'}))
        job = RelayJob(kits / 'server', kits / 'admin', print)
        job.start()
        links = [SiteLink(name, job, 600.0) for name in SITES]
        while not all(link.is_here() for link in links):
            time.sleep(0.5)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda link: link.set_up({}, dict(run=b'{}')), links))
            figures = rounds(args, kits, links, pool)
        job.close()
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(20)
    print(f'seconds a round: median {figures["seconds"]:.2f}, most {figures["most_seconds"]:.2f}')
    print(f'most memory in each ten rounds, MB: job {figures["job_memory"]}, training {figures["training_memory"]}')
    print(f'bytes on the way over those of the tensors: {figures["bytes_ratio"]:.4f}')
    if args.json:
        write_json(args.json, figures)


def rounds(args: argparse.Namespace, kits: Path, links: list[SiteLink], pool: ThreadPoolExecutor) -> dict:
    size = args.mebibytes * (1 << 20) // 4 // TENSORS
    weights = {f'layer.{index}.weight': torch.randn(size) for index in range(TENSORS)}
    pid, seconds, job, training, ledger = job_process(kits / 'server'), [], [], [], 0
    mean = WeightedMean()
    for number in range(args.rounds):
        started = time.perf_counter()
        broadcast = Broadcast(number, weights)
        content, rest = pack_tensors(weights), Broadcast(number, {}).to_bytes()
        mean.begin(weights, list(weights))
        done = [pool.submit(link.do, 'train', dict(client=client, round=number), dict(weights=content, rest=rest))
                for client, link in enumerate(links)]
        for future in done:
            update = ClientUpdate.from_bytes(future.result().content, weights)
            mean.add(update.weights, 1.0)
            ledger += update.num_bytes + broadcast.num_bytes
            del update
        weights = {name: tensor + 1e-3 for name, tensor in mean.result(reuse=weights).items()}
        seconds.append(time.perf_counter() - started)
        job.append(memory(pid))
        training.append(memory(os.getpid()))
        print(f'round {number + 1}: {seconds[-1]:.2f} s, {job[-1]:.0f} MB, {training[-1]:.0f} MB', flush=True)
    tens = [slice(start, start + 10) for start in range(0, args.rounds, 10)]
    sent = sum(link.sent + link.received for link in links)
    return dict(seconds=sorted(seconds)[len(seconds) // 2], most_seconds=max(seconds),
                job_memory=[round(max(job[part])) for part in tens],
                training_memory=[round(max(training[part])) for part in tens],
                bytes_ratio=sent / ledger)


if __name__ == '__main__':
    main()
