"""All benchmarks one after the other, each in a process of its own; results by id in one JSON file.

    python benchmarks/run.py                      # what `make bench` does
    python benchmarks/run.py --device cuda        # those that have something to say about a GPU
    python benchmarks/run.py --only fold contrast
"""
import argparse
import datetime
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import machine, print_results

from fedseg_mm.files import write_json
from fedseg_mm.provenance import commit

HERE = Path(__file__).parent
CPU = ('back_ce', 'contrast', 'fold', 'client_switch', 'round_overhead', 'naive_setup', 'processes', 'clients_memory',
       'partition')
CUDA = ('back_ce', 'contrast', 'fold', 'client_switch', 'round_overhead', 'naive_setup')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    parser.add_argument('--only', nargs='+', choices=CPU, metavar='NAME', help=f'some of {", ".join(CPU)}; what the '
                        'results file has of the others stays')
    parser.add_argument('--json', type=Path, help='the results file (default: benchmarks/results/DEVICE.json)')
    args = parser.parse_args()
    file = args.json or HERE / 'results' / f'{args.device}.json'
    names = args.only or (CPU if args.device == 'cpu' else CUDA)
    results = json.loads(file.read_text()) if args.only and file.is_file() else {}
    print(machine(args.device))
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        for place, name in enumerate(names, 1):
            print(f'\n[{place}/{len(names)}] {name}', flush=True)
            start = time.perf_counter()
            part = Path(folder) / f'{name}.json'
            device = [] if args.device == 'cpu' else ['--device', args.device]
            done = subprocess.run([sys.executable, '-W', 'ignore', str(HERE / f'{name}.py'), '--json', str(part),
                                   *device])
            if done.returncode:
                failed.append(name)
                continue
            results.update(json.loads(part.read_text()))
            print(f'{time.perf_counter() - start:.0f} s')
    print()
    print_results(results)
    if missed := [name for name, one in results.items() if not one['holds']]:
        print(f'Goals that were not reached: {", ".join(missed)}. Other work on the machine spoils them: run again.')
    write_json(file, results)
    with file.with_suffix('.log').open('a' if args.only else 'w', encoding='utf-8') as log:  # where figures come from
        log.write(f'{datetime.date.today()} {", ".join(names)}: {machine(args.device)}; commit {commit()}\n')
    print(f'Written to {file}')
    if failed:
        sys.exit(f'failed: {", ".join(failed)}')


if __name__ == '__main__':
    main()
