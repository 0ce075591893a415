"""What is off, or on, because it was measured: formats, precision, compilation, FedSeg's parts, image decoding.

    python benchmarks/options.py                  # steps in other formats, rounds of FedSeg, decoding
    python benchmarks/options.py --compile        # with torch.compile too, which takes minutes
    python benchmarks/options.py --device cuda
"""
import argparse
import copy
import os
import sys
import time
from collections.abc import Callable
from statistics import median

import torch
from measure import interleaved, machine, ratios, table
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import DATASETS, MODELS
from mmseg.structures import SegDataSample
from peers import CLASSES, config, federated_config, federation, image_folder, model

from fedseg_mm.models import accuracy_without_waiting, flip_without_waiting


def one_step(network: torch.nn.Module, batch: dict, device: str, bfloat16: bool) -> Callable[[], None]:
    """Forward, backward and SGD step on one batch, as a client's."""
    flip_without_waiting(network.data_preprocessor)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)

    def step() -> None:
        with torch.autocast(device, dtype=torch.bfloat16, enabled=bfloat16), accuracy_without_waiting(network):
            data = network.data_preprocessor(copy.deepcopy(batch), True)
            loss, _ = network.parse_losses(network(**data, mode='loss'))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def steps(device: str, compiled: bool) -> None:
    """Stock training steps in other formats and precision."""
    shapes = [('narrow', (96, 128), 8), ('bisenetv2', (256, 256), 4)] if device == 'cpu' else [
        ('bisenetv2', (512, 512), 8), ('deeplabv3', (512, 512), 8)]
    rows = []
    for kind, crop, images in shapes:
        torch.manual_seed(0)
        plain = MODELS.build(model(crop, kind)).train().to(device)
        batch = dict(
            inputs=[torch.randint(0, 256, (3, *crop), dtype=torch.uint8) for _ in range(images)],
            data_samples=[SegDataSample(gt_sem_seg=PixelData(data=torch.randint(0, len(CLASSES), (1, *crop))))
                          for _ in range(images)])
        variants = {}
        for name, last, bfloat16 in (('float32', False, False), ('channels_last', True, False),
                                     ('bfloat16', False, True), ('bfloat16, channels_last', True, True)):
            network = copy.deepcopy(plain)
            if last:
                network.to(memory_format=torch.channels_last)
            variants[name] = one_step(network, batch, device, bfloat16)
        if compiled and not rows:  # of the first model only: it takes minutes
            network = copy.deepcopy(plain)
            network.forward = torch.compile(network.forward)
            variants['torch.compile'] = one_step(network, batch, device, False)
            start = time.perf_counter()
            variants['torch.compile']()
            print(f'Compiling {kind} took {time.perf_counter() - start:.0f} s.')
        times = interleaved(*variants.values(), repeats=7, device=device)
        title = f'{kind}, {images} of {crop[0]}x{crop[1]}'
        rows += [[title, name, f'{1e3 * median(one):.1f}', f'{median(ratios(one, times[0])):.2f}']
                 for name, one in zip(variants, times)]
    table('Training steps', ['model, batch', '', 'ms', 'to float32'], rows)


def methods(device: str) -> None:
    """Rounds of FedSeg without and with its parts; what the frozen model's forward passes cost."""
    settings = {
        'FedAvg': dict(type='FedAvg'),
        'FedSeg, no pseudo-labels': dict(type='FedSeg', start_round=0, terms=['annotated']),
        'FedSeg': dict(type='FedSeg', start_round=0),
        'MOON': dict(type='MOON'),
    }
    kind, crop = ('narrow', (96, 128)) if device == 'cpu' else ('bisenetv2', (512, 512))
    with image_folder(40, (crop[0] * 5 // 4, crop[1] * 5 // 4)) as folder:
        loops = [federation(federated_config(config(folder, crop, 4, 0 if device == 'cpu' else 3, kind), 5, 5, 2,
                                             algorithm=algorithm), name) for name, algorithm in settings.items()]
        times = interleaved(*(loop.run_epoch for loop in loops), repeats=7, device=device)
        for loop in loops:
            loop.federation.backend.stream.close()
    table(f'Rounds of 5 clients with 4 batches of 4 images, {kind}', ['', 's', 'to FedAvg'],
          [[name, f'{median(one):.2f}', f'{median(ratios(one, times[0])):.2f}'] for name, one in zip(settings, times)])


def decoding() -> None:
    """Where the time of an image's pipeline goes, and what a cache of decoded images saves."""
    with image_folder(60, (1024, 2048)) as folder:
        os.environ['FEDSEG_CACHE'] = str(folder / 'cache')
        common = config(folder, (512, 1024), 4, 0)['train_dataloader']['dataset']
        cached = copy.deepcopy(common)
        cached['pipeline'][0]['type'] = 'LoadCachedImage'
        rows = []
        for name, dataset in (('stock', DATASETS.build(common)), ('cached', DATASETS.build(cached))):
            for spent in ({}, {}):  # the second time around, the cache is full
                for index in range(len(dataset)):
                    sample = dataset.get_data_info(index)
                    for transform in dataset.pipeline.transforms:
                        start = time.perf_counter()
                        sample = transform(sample)
                        stage = type(transform).__name__
                        spent[stage] = spent.get(stage, 0) + time.perf_counter() - start
            rows += [[name, stage, f'{1e3 * seconds / len(dataset):.1f}', f'{seconds / sum(spent.values()):.0%}']
                     for stage, seconds in spent.items()]
    table('An image of 2048x1024 through its pipeline', ['', 'transform', 'ms', 'share'], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    parser.add_argument('--compile', action='store_true', help='measure torch.compile too, with the first model')
    args = parser.parse_args()
    if args.device == 'cuda' and not torch.cuda.is_available():
        sys.exit('there is no GPU: leave out --device cuda')
    torch.set_num_threads(1)
    init_default_scope('mmseg')
    print(machine(args.device))
    steps(args.device, args.compile)
    methods(args.device)
    decoding()


if __name__ == '__main__':
    main()
