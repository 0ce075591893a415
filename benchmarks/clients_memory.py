"""Peak memory of a training with 2,000 clients against one with 20; the same 2,000 images, FedDyn, which keeps states.

Each runs in a process of its own; the peak is the most memory that the operating system counted for it.
"""
import argparse
import resource
import subprocess
import sys

from measure import Result, main, table
from peers import config, federated_config, federation, image_folder

IMAGES = 2000


def train(clients: int) -> float:
    """Peak memory in MiB of a few rounds with two clients each."""
    with image_folder(IMAGES, (24, 32)) as folder:
        cfg = federated_config(config(folder, (24, 32), 8, 0), clients, 2, 1, algorithm=dict(type='FedDyn'))
        loop = federation(cfg)
        for _ in range(5):
            loop.run_epoch()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(device: str) -> dict[str, Result]:
    peaks: dict[int, list[float]] = {20: [], 2000: []}
    for _ in range(2):
        for clients in peaks:
            done = subprocess.run([sys.executable, __file__, '--clients', str(clients)], check=True,
                                  capture_output=True, text=True)
            peaks[clients].append(float(done.stdout.split()[-1]))
    table('Peak memory', ['clients', 'MiB'], [[clients, ', '.join(f'{peak:.0f}' for peak in found)]
                                              for clients, found in peaks.items()])
    found = [many / few for many, few in zip(peaks[2000], peaks[20])]
    return {'memory_in_clients': Result(max(found), 1.05, (min(found), max(found)))}


if __name__ == '__main__':
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument('--clients', type=int)
    args, _ = parser.parse_known_args()
    if args.clients:
        print(train(args.clients))
    else:
        main(__doc__, measure, devices=('cpu', ))
