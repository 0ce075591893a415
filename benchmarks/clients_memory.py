"""Peak memory of a training with 2,000 clients against one with 20; the same 2,000 images, FedDyn, which keeps states.

Equally many trainings of a client on both sides, which are of nearly as many clients where there are 2,000: whatever is
held per client that has trained shows. Each side runs in a process of its own; the peak is the most memory that the
operating system counted for it.

    python benchmarks/clients_memory.py --leak    # with a store that holds all states: must not reach the goal
"""
import argparse
import copy
import os
import resource
import subprocess
import sys

from measure import Result, main, print_results, table
from peers import config, federated_config, federation, image_folder

from fedseg_mm.engine import ClientStateStore

IMAGES, CLIENTS_PER_ROUND, ROUNDS = 2000, 10, 12


class LeakingStore(ClientStateStore):
    """What must be noticed."""
    held: dict = {}

    def save(self, client, rounds, state) -> None:
        super().save(client, rounds, state)
        self.held[client] = copy.deepcopy(state)


def train(clients: int, leak: bool) -> float:
    """Peak memory in MiB of some rounds."""
    with image_folder(IMAGES, (24, 32)) as folder:
        common = config(folder, (24, 32), 16, 0)
        loop = federation(federated_config(common, clients, CLIENTS_PER_ROUND, 1, algorithm=dict(type='FedDyn')))
        if leak:
            loop.federation.backend.trainer.store = LeakingStore(loop.federation.backend.store.folder)
        for _ in range(ROUNDS):
            loop.run_epoch()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(device: str, leak: bool = False) -> dict[str, Result]:
    peaks: dict[int, list[float]] = {20: [], 2000: []}
    for _ in range(2):
        for clients in peaks:
            command = [sys.executable, '-W', 'ignore', __file__, '--clients', str(clients)]
            done = subprocess.run(command + ['--leak'] * leak, check=True, capture_output=True, text=True,
                                  env={**os.environ, 'OMP_NUM_THREADS': '1'})
            peaks[clients].append(float(done.stdout.split()[-1]))
    table(f'Peak memory, {ROUNDS} rounds of {CLIENTS_PER_ROUND} clients', ['clients', 'MiB'],
          [[clients, ', '.join(f'{peak:.0f}' for peak in found)] for clients, found in peaks.items()])
    found = [many / few for many, few in zip(peaks[2000], peaks[20])]
    return {'memory_in_clients': Result(max(found), 1.05, (min(found), max(found)))}


if __name__ == '__main__':
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument('--clients', type=int)
    parser.add_argument('--leak', action='store_true')
    args, _ = parser.parse_known_args()
    if args.clients:
        print(train(args.clients, args.leak))
    elif args.leak:
        print_results({name: result.as_dict() for name, result in measure('cpu', leak=True).items()})
    else:
        main(__doc__, measure, devices=('cpu', ))
