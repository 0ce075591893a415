"""A round of FedAvg against the same steps in stock MMSegmentation training; warm, in turn, in one process.

5 clients x 2 local epochs x 2 batches of 8: 20 steps. The stock run is MMEngine's IterBasedTrainLoop with an
InfiniteSampler over the same images, which never waits for a loader to start. CPU: a narrow UPerNet at 96x128 with one
loader worker and one thread; GPU: BiSeNetV2 and DeepLabV3-R50 at 512x512, with eight workers.
"""
from statistics import median

import torch
from measure import Result, interleaved, main, ratios, table
from peers import config, federated_config, federation, image_folder, stock

CLIENTS, EPOCHS, BATCHES, BATCH_SIZE = 5, 2, 2, 8
STEPS = CLIENTS * EPOCHS * BATCHES


def compare(kind: str, crop: tuple[int, int], workers: int, repeats: int, device: str) -> list[list[float]]:
    """Seconds of rounds, and of as many stock steps."""
    size = (crop[0] * 5 // 4, crop[1] * 5 // 4)
    with image_folder(CLIENTS * BATCHES * BATCH_SIZE, size) as folder:
        common = config(folder, crop, BATCH_SIZE, workers, kind)
        ours = federation(federated_config(common, CLIENTS, CLIENTS, EPOCHS))
        theirs = stock(common)
        rounds = 1 if device == 'cpu' else 4  # so that batches loaded during the other's turn are few among all

        def train() -> None:
            for _ in range(rounds):
                ours.run_epoch()

        times = interleaved(train, lambda: theirs.steps(rounds * STEPS), repeats=repeats, device=device)
        times = [[seconds / rounds for seconds in one] for one in times]
        ours.federation.backend.stream.close()
        return times


def measure(device: str) -> dict[str, Result]:
    kinds = [('narrow', (96, 128), 1, 9)] if device == 'cpu' else [
        ('bisenetv2', (512, 512), 8, 9), ('deeplabv3', (512, 512), 8, 5)]
    if device == 'cpu':
        torch.set_num_threads(1)
    rows, found = [], []
    for kind, crop, workers, repeats in kinds:
        rounds, steps = compare(kind, crop, workers, repeats, device)
        medians = [median(times) for times in (rounds, steps)]
        rows.append([f'{kind} {crop[0]}x{crop[1]}', *(f'{seconds:.2f}' for seconds in medians),
                     *(f'{STEPS * BATCH_SIZE / seconds:.1f}' for seconds in medians)])
        found.append(ratios(rounds, steps))
    table(f'{STEPS} steps of {BATCH_SIZE} images', ['model', 'round s', 'stock s', 'round images/s', 'stock images/s'],
          rows)
    return {'round_overhead': Result.of(max(found, key=median), 1.05)}


if __name__ == '__main__':
    main(__doc__, measure)
