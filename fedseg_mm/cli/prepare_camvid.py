"""CamVid as it is downloaded becomes CamVid as MMSegmentation reads it."""
import shutil
from pathlib import Path

import numpy as np
from PIL import Image
from rich.progress import track

from fedseg_mm.cli import arguments
from fedseg_mm.cli.common import one_sentence_errors
from fedseg_mm.console import as_called
from fedseg_mm.datasets import VOID, CamVidDataset
from fedseg_mm.datasets.labels import NO_IMAGE
from fedseg_mm.errors import FedSegError

SPLITS = ('train', 'val', 'test')
SOURCE_VOID = len(CamVidDataset.METAINFO['classes'])


def read_label(path: Path) -> np.ndarray:
    """A label of the download with void as 255, uint8 (H, W).

    Raises:
        FedSegError: It is missing, damaged or no such label.
    """
    try:
        label = np.array(Image.open(path))
    except FileNotFoundError:
        raise FedSegError(f'the label {path} does not exist') from None
    except NO_IMAGE as error:
        raise FedSegError(f'the label {path} is damaged: {error}') from error
    if label.ndim != 2 or label.max() > SOURCE_VOID and (label[label > SOURCE_VOID] != VOID).any():
        raise FedSegError(f'the label {path} does not hold one of the values 0 to {SOURCE_VOID} per pixel: the source '
                          "must be the SegNet authors' version of CamVid")
    return np.where(label == SOURCE_VOID, VOID, label).astype(np.uint8)


def main(argv: list[str] | None = None) -> None:
    args = arguments.prepare_camvid(argv)
    with one_sentence_errors('prepare_camvid'):
        images = [(split, path) for split in SPLITS for path in sorted((args.source / split).glob('*.png'))]
        for split in SPLITS:
            if not any(split == found for found, _ in images):
                raise FedSegError(f'there are no PNG images in {args.source / split}: name the folder that holds '
                                  'train, trainannot, val, …')
        for split in SPLITS:
            for kind in ('img_dir', 'ann_dir'):
                try:
                    (args.target / kind / split).mkdir(parents=True, exist_ok=True)
                except OSError as error:
                    raise FedSegError(f'the target {args.target} cannot be written: {error.strerror}') from error
        for split, path in track(images, 'CamVid'):
            label = read_label(args.source / f'{split}annot' / path.name)
            Image.fromarray(label).save(args.target / 'ann_dir' / split / path.name)
            shutil.copyfile(path, args.target / 'img_dir' / split / path.name)
        counts = ', '.join(f'{sum(found == split for found, _ in images)} {split}' for split in SPLITS)
        training = as_called('python tools/fed_train.py configs/fedavg/upernet_camvid160x120_noniid1_backce.py')
        print(f'{counts} images are in {args.target}. Train on them with:\n  FEDSEG_CAMVID={args.target} {training}')
