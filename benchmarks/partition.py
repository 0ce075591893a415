"""How long a partition of a million images among a hundred thousand clients takes, and how much memory.

Every partitioner has a process of its own, which draws the histograms of the
images' classes, splits them and looks at the result as a training does. The
table has the seconds of the split, of its hash, of the manifest and of the
summary (tables and warnings); ``partition_seconds`` is the sum of the first
three, ``partition_gb`` the peak of the whole process, libraries and histograms
with it; both of the worst partitioner.

    python benchmarks/partition.py
    python benchmarks/partition.py --images 10000 --clients 1000
"""
import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NUM_IMAGES = 1_000_000
NUM_CLIENTS = 100_000
CLASSES = tuple(f'class {cls}' for cls in range(19))
#: What ``--clients`` is for all of them but the last two, whose clients the names of the images and a file say.
PARTITIONERS = {
    'ClassPartitioner': dict(type='ClassPartitioner'),
    'DirichletPartitioner, alpha 0.5': dict(type='DirichletPartitioner', alpha=0.5),
    'DirichletPartitioner, alpha 0.01': dict(type='DirichletPartitioner', alpha=0.01),
    'IIDPartitioner, 1 class': dict(type='IIDPartitioner', classes_per_client=1),
    'GroupPartitioner': dict(type='GroupPartitioner', pattern=r'train/(\w+)/'),
    'ManifestPartitioner': dict(type='ManifestPartitioner'),
}
SECONDS_GOAL, GB_GOAL = 60, 4


def draw_histograms(num_images: int):
    """Pixels of each class in each image, int64 (images, classes).

    An image shows 8 of the 19 classes on average; the most frequent one is in
    four of five images, the rarest in one of twenty.
    """
    import numpy as np
    rng = np.random.default_rng(0)
    shown = rng.random((num_images, len(CLASSES)), np.float32) < np.linspace(0.8, 0.05, len(CLASSES), dtype=np.float32)
    return shown * rng.integers(1, 10_000, shown.shape)


def measure_one(name: str, num_images: int, num_clients: int, folder: Path) -> dict[str, float]:
    """Seconds of each stage of one partitioner, and the peak of this process in GB."""
    import resource

    import numpy as np

    from fedseg_mm.datasets import PartitionSummary
    from fedseg_mm.federation import build_partitioner
    arguments = dict(PARTITIONERS[name])
    if name == 'ManifestPartitioner':
        arguments['manifest'] = str(folder / 'IIDPartitioner.json')
    elif name != 'GroupPartitioner':
        arguments['num_clients'] = num_clients
    counts = draw_histograms(num_images)
    image_names = [f'train/site{index % num_clients:06d}/{index:07d}.png' for index in range(num_images)]

    stages, start = {}, time.perf_counter()

    def stage(title: str) -> None:
        nonlocal start
        now = time.perf_counter()
        stages[title], start = now - start, now

    partitioner = build_partitioner(arguments)
    partitioner.unannotated_values(image_names, CLASSES)
    partition = partitioner.partition(counts, image_names, CLASSES)
    stage('split')
    partition.hash  # noqa: B018
    stage('hash')
    partition.save(folder / f'{arguments["type"]}.json', image_names, CLASSES)
    stage('save')
    summary = PartitionSummary(partition, image_names, CLASSES, counts, np.zeros(num_images, np.int64))
    summary.client_table(), summary.class_table(), summary.warnings(batch_size=8)
    stage('summary')
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, KiB elsewhere
    stages['peak GB'] = peak / 1e9 if sys.platform == 'darwin' else peak * 1024 / 1e9
    return stages


def measure_all(num_images: int, num_clients: int) -> dict[str, dict[str, float]]:
    """:func:`measure_one` of every partitioner, each in a new process."""
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in PARTITIONERS:
            command = [sys.executable, __file__, '--images', str(num_images), '--clients', str(num_clients),
                       '--one', name, '--folder', folder]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            results[name] = json.loads(done.stdout.splitlines()[-1])
    return results


def against_goals(results: dict[str, dict[str, float]]) -> dict:
    """The slowest and the largest partitioner against the goals."""
    seconds = [result['split'] + result['hash'] + result['save'] for result in results.values()]
    gigabytes = [result['peak GB'] for result in results.values()]
    return {
        name: dict(value=max(values), goal=goal, holds=max(values) < goal, spread=[min(values), max(values)])
        for name, values, goal in (('partition_seconds', seconds, SECONDS_GOAL), ('partition_gb', gigabytes, GB_GOAL))
    }


def measure() -> dict:
    """Seconds of a partition, with its hash and manifest, and GB of its process: the worst of all partitioners."""
    return against_goals(measure_all(NUM_IMAGES, NUM_CLIENTS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--images', type=int, default=NUM_IMAGES, help=f'images (default: {NUM_IMAGES:,})')
    parser.add_argument('--clients', type=int, default=NUM_CLIENTS, help=f'clients (default: {NUM_CLIENTS:,})')
    parser.add_argument('--json', metavar='FILE', help='where the worst values and their goals go')
    parser.add_argument('--one', choices=PARTITIONERS, help=argparse.SUPPRESS)
    parser.add_argument('--folder', type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure_one(args.one, args.images, args.clients, args.folder)))
        return
    results = measure_all(args.images, args.clients)
    titles = list(next(iter(results.values())))
    print(f'{args.images:,} images of {len(CLASSES)} classes, {args.clients:,} clients; seconds and GB')
    print(f'{"":34}' + ''.join(f'{title:>10}' for title in titles))
    for name, result in results.items():
        print(f'{name:34}' + ''.join(f'{result[title]:10.2f}' for title in titles))
    goals = against_goals(results)
    for name, worst in goals.items():
        print(f'{name}: {worst["value"]:.1f}, goal below {worst["goal"]}: '
              f'{"holds" if worst["holds"] else "does not hold"}')
    if args.json:
        Path(args.json).write_text(json.dumps(goals, indent=1) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main()
