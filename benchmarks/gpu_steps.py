"""Training steps and loading at the sizes of the paper's protocol: milliseconds, memory and images per second.

    python benchmarks/gpu_steps.py --device cuda
    python benchmarks/gpu_steps.py                  # small, on a CPU

Steps are forward, BackCE with one annotated class, backward and SGD, in every combination of precision, layout and
BackCE's implementation; loading is a client's pipeline on 2048x1024 images, with several numbers of workers.
"""
import argparse
import copy
import sys
import time
from pathlib import Path
from statistics import median

import torch
from measure import interleaved, machine, table
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import DATASETS, MODELS
from mmseg.structures import SegDataSample
from options import one_step
from peers import CLASSES, config, image_folder, model
from torch.utils.data import DataLoader

from fedseg_mm.datasets import ClientBatchSampler, ClientDataset, ClientShard, Pass
from fedseg_mm.files import write_json
from fedseg_mm.models import BackCELoss

PRECISIONS, LAYOUTS = ('float32', 'bfloat16'), ('contiguous', 'channels_last')


def training_steps(device: str, kind: str, crop: tuple[int, int], images: int, repeats: int) -> dict[str, dict]:
    """Milliseconds and peak memory of a step, by precision, layout and implementation."""
    implementations = ('torch', 'triton') if device == 'cuda' else ('torch', )
    batch = dict(
        inputs=[torch.randint(0, 256, (3, *crop), dtype=torch.uint8) for _ in range(images)],
        data_samples=[SegDataSample(gt_sem_seg=PixelData(data=torch.randint(0, len(CLASSES), (1, *crop))))
                      for _ in range(images)])
    for sample in batch['data_samples']:
        sample.gt_sem_seg.data.masked_fill_(sample.gt_sem_seg.data > 0, 254)
    settings = model(crop, kind)
    for head in [settings['decode_head'], *(settings.get('auxiliary_head') or [])]:
        head['loss_decode'] = dict(type='BackCELoss')
    found = {}
    for precision in PRECISIONS:
        for layout in LAYOUTS:
            for implementation in implementations:
                torch.manual_seed(0)
                network = MODELS.build(copy.deepcopy(settings)).train().to(device)
                if layout == 'channels_last':
                    network.to(memory_format=torch.channels_last)
                for loss in (module for module in network.modules() if isinstance(module, BackCELoss)):
                    loss.implementation = implementation
                    loss.set_annotated_classes([0])
                step = one_step(network, batch, device, precision == 'bfloat16')
                if device == 'cuda':
                    torch.cuda.reset_peak_memory_stats()
                times, = interleaved(step, repeats=repeats, device=device)
                found[f'{precision} {layout} {implementation}'] = dict(
                    ms=round(1e3 * median(times), 2),
                    gb=round(torch.cuda.max_memory_allocated() / 2**30, 2) if device == 'cuda' else None)
                del network, step
    return found


def loading(size: tuple[int, int], crop: tuple[int, int], number: int, workers: tuple[int, ...]) -> dict[str, float]:
    """Images per second through a client's pipeline, by the number of workers."""
    found = {}
    with image_folder(number, size) as folder:
        common = config(folder, crop, 4, 0)['train_dataloader']['dataset']
        for count in workers:
            sampler = ClientBatchSampler([ClientShard(tuple(range(number)), (0, ))], 4, 4, True)
            sampler.plan = [Pass(0, 0), Pass(1, 0)]
            batches = iter(DataLoader(
                ClientDataset(DATASETS.build(copy.deepcopy(common))), batch_sampler=sampler, num_workers=count,
                collate_fn=pseudo_collate, pin_memory=torch.cuda.is_available()))
            next(batches)  # workers have started
            start, seen = time.perf_counter(), 0
            for batch in batches:
                seen += len(batch['inputs'])
            found[str(count)] = round(seen / (time.perf_counter() - start), 1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    parser.add_argument('--only', nargs='+', choices=('bisenetv2', 'deeplabv3', 'loading'), help='some of it, on a GPU')
    parser.add_argument('--json', type=Path, metavar='FILE')
    args = parser.parse_args()
    if args.device == 'cuda' and not torch.cuda.is_available():
        sys.exit('there is no GPU: leave out --device cuda')
    init_default_scope('mmseg')
    print(machine(args.device))
    results: dict[str, dict] = {}
    small = args.device == 'cpu'
    wanted = ('narrow', 'loading') if small else args.only or ('bisenetv2', 'deeplabv3', 'loading')
    for name in wanted:
        if name == 'loading':
            results[name] = loading((64, 128), (32, 64), 8, (0, 1)) if small else loading(
                (1024, 2048), (512, 1024), 64, (4, 8, 14))
            table('Loading', ['workers', 'images/s'], [list(row) for row in results[name].items()])
        else:
            results[name] = training_steps(args.device, name, (48, 64) if small else (512, 1024), 2 if small else 8,
                                           2 if small else 9)
            table(f'A step of {name}', ['', 'ms', 'peak GB'],
                  [[variant, *one.values()] for variant, one in results[name].items()])
    if args.json:
        write_json(args.json, results)


if __name__ == '__main__':
    main()
