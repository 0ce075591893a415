"""A few predictions of a test, kept for people to look at."""
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from mmengine.dataset import BaseDataset, ConcatDataset
from mmengine.hooks import Hook

from fedseg_mm.files import atomic_write, write_json

#: Images that are kept.
SAMPLES = 4
#: Greatest width of a kept picture, in pixels.
WIDTH = 480


class PredictionSamplesHook(Hook):
    """Keeps image, label and prediction of some test images, in ``predictions/`` of the log folder.

    They are the same images for every run on a data set, evenly spaced in it.
    ``tools/test.py`` registers it; ``tools/fed_report.py`` shows them.
    """
    priority = 'LOW'

    def before_test(self, runner) -> None:
        dataset = runner.test_dataloader.dataset
        self._wanted: dict[str, int] = {}
        if not isinstance(dataset, (BaseDataset, ConcatDataset)) or not len(dataset):
            return
        places = np.linspace(0, len(dataset) - 1, min(SAMPLES, len(dataset))).round().astype(int).tolist()
        self._wanted = {dataset.get_data_info(place)['img_path']: i for i, place in enumerate(places)}
        self._folder = Path(runner.log_dir) / 'predictions'
        meta = dataset.metainfo
        write_json(self._folder / 'classes.json', dict(
            names=list(meta['classes']), palette=[list(colour) for colour in meta.get('palette') or []],
            images=list(self._wanted)))

    def after_test_iter(self, runner, batch_idx: int, data_batch=None, outputs: Sequence | None = None) -> None:
        for image, sample in zip((data_batch or {}).get('inputs', ()), outputs or ()):
            number = self._wanted.get(getattr(sample, 'img_path', ''))
            if number is None or 'pred_sem_seg' not in sample or getattr(image, 'ndim', 0) != 3 or len(image) != 3:
                continue
            prediction = sample.pred_sem_seg.data[0].cpu().numpy().astype(np.uint8)
            size = self._size(prediction)
            picture = np.ascontiguousarray(image.cpu().numpy().transpose(1, 2, 0)).astype(np.uint8)
            self._write(number, 'image', cv2.resize(picture, size, interpolation=cv2.INTER_AREA))
            self._write(number, 'prediction', cv2.resize(prediction, size, interpolation=cv2.INTER_NEAREST))
            if 'gt_sem_seg' in sample:
                label = sample.gt_sem_seg.data[0].cpu().numpy().astype(np.uint8)
                self._write(number, 'label', cv2.resize(label, size, interpolation=cv2.INTER_NEAREST))

    @staticmethod
    def _size(label: np.ndarray) -> tuple[int, int]:
        height, width = label.shape
        scale = min(1.0, WIDTH / width)
        return max(1, round(width * scale)), max(1, round(height * scale))

    def _write(self, number: int, what: str, picture: np.ndarray) -> None:
        with atomic_write(self._folder / f'{number}_{what}.png') as file:
            file.write_bytes(cv2.imencode('.png', picture)[1].tobytes())
