"""Whether a change keeps the results: tiny trainings with an earlier commit and with this tree, compared bit for bit.

    python -m tests.same_bits --before 9ccca20
    python -m tests.same_bits --before 9ccca20 --interrupted    # two rounds there, and the last one here, by --resume

A redesign is to give the same weights. Every training is a process of tools/fed_train.py, three rounds long, with one
thread. It is no test of the suite: it takes some minutes, and the commit to compare with is one's own to name.
"""
import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from tests.conftest import ROOT, make_images, weights_of, write_config

TRAININGS = {
    'FedAvg with cross-entropy': {
        'model.decode_head.loss_decode': dict(_delete_=True, type='CrossEntropyLoss', avg_non_ignore=True)},
    'FedAvg with BackCE': {},
    'FedSeg': {'federated.algorithm': dict(type='FedSeg', embedding_channels=16, threshold=0.3)},
    'FedProx': {'federated.algorithm': dict(type='FedProx', mu=0.1)},
    'FedDyn': {'federated.algorithm': dict(type='FedDyn')},
    'MOON': {'federated.algorithm': dict(type='MOON')},
    'SCAFFOLD': {'federated.algorithm': dict(type='SCAFFOLD')},
    'FedAdam': {'federated.algorithm': dict(type='FedAdam')},
    'FedBN': {'federated.algorithm': dict(type='FedBN')},
    'recalibrated batch normalisation': {'federated.algorithm': dict(type='FedAvg', batch_norm='recalibrate')},
    'Centralised': {'federated.algorithm': dict(type='Centralised')},
    'two processes': {'federated.algorithm': dict(type='FedProx')},
}


def run(tree: Path, config: str, processes: int, options: list[str], *arguments: str) -> None:
    launch = ['-m', 'torch.distributed.run', f'--nproc_per_node={processes}', '--standalone'] if processes > 1 else []
    command = [sys.executable, *launch, str(tree / 'tools' / 'fed_train.py'), config,
               *arguments, *(['--launcher', 'pytorch'] if processes > 1 else []),
               *(['--cfg-options', *options] if options else [])]
    done = subprocess.run(command, capture_output=True, text=True, env={
        **os.environ, 'PYTHONPATH': str(tree), 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''})
    if done.returncode:
        sys.exit(f'{tree}: {" ".join(command)} failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--before', required=True, metavar='COMMIT', help='the commit to compare with')
    parser.add_argument('--only', nargs='+', choices=list(TRAININGS), help='which trainings (default: all)')
    parser.add_argument('--now-options', nargs='+', default=[], metavar='KEY=VALUE',
                        help='settings of this tree alone, where a default has changed on purpose')
    parser.add_argument('--interrupted', action='store_true',
                        help='have this tree resume what the earlier commit has trained for two of three rounds')
    args = parser.parse_args()
    different = []
    with tempfile.TemporaryDirectory() as folder:
        before, data = Path(folder, 'before'), Path(folder, 'data')
        subprocess.run(['git', '-C', ROOT, 'worktree', 'add', '--detach', '--quiet', before, args.before], check=True)
        try:
            make_images(data, 'train', 24)
            make_images(data, 'test', 4, seed=1)
            names = args.only or list(TRAININGS)
            for name in names:
                weights = []
                for tree, options in ((before, []), (ROOT, args.now_options)):
                    work_dir = Path(folder, tree.name, name.replace(' ', '_'))
                    config = write_config(data, work_dir, **TRAININGS[name])
                    processes = 2 if name == 'two processes' else 1
                    if args.interrupted and tree == ROOT:
                        run(before, config, processes, ['train_cfg.max_rounds=2'])
                        write_config(data, work_dir, **TRAININGS[name])  # MMEngine has written another there
                        run(tree, config, processes, options, '--resume')
                    else:
                        run(tree, config, processes, options)
                    weights.append(weights_of(work_dir / 'round_3.pth'))
                first, second = weights
                same = first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
                print(f'{"same bits" if same else "DIFFERENT":10s} {name}', flush=True)
                different += [] if same else [name]
        finally:
            subprocess.run(['git', '-C', ROOT, 'worktree', 'remove', '--force', before], check=True)
    print(f'{len(names) - len(different)} of {len(names)} equal')
    sys.exit(bool(different))


if __name__ == '__main__':
    main()
