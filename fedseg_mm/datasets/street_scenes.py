"""The built-in data set: street scenes that are drawn, not downloaded."""
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from fedseg_mm.datasets.street_scene_painter import CLASSES
from fedseg_mm.datasets.transforms.load_street_scene import scene_path
from fedseg_mm.errors import FedSegError
from fedseg_mm.validation import check_positive


@DATASETS.register_module()
class StreetScenesDataset(BaseSegDataset):
    """Street scenes of ten classes, drawn in memory; nothing is downloaded or written.

    Classes differ widely in frequency and size (a road in every scene, a bus
    in one of six; a third of the pixels, or a five-hundredth), hide one
    another and vary in light, texture and noise. Scene i of a split is the
    same in every run and on every machine. Any pipeline can load it: with
    :class:`LoadStreetScene`, which draws once for image and label, or with the
    stock ``LoadImageFromFile`` and ``LoadAnnotations``. It is made for demos,
    tests and teaching: results on it say nothing about real images.

    Args:
        split (str): Names the scenes; splits share none, e.g. 'train' and
            'val'. Defaults to 'train'.
        num_images (int): Number of scenes. Defaults to 300.
        size (tuple[int, int]): Width and height in pixels.
            Defaults to (160, 120).
        seed (int): Another seed gives other scenes. Defaults to 0.
        kwargs: Further arguments of MMSegmentation's BaseSegDataset.

    Raises:
        FedSegError: A number or the size is not positive.
    """
    METAINFO = dict(
        classes=CLASSES,
        # Cityscapes' colours
        palette=[[70, 130, 180], [70, 70, 70], [128, 64, 128], [244, 35, 232], [107, 142, 35], [0, 0, 142],
                 [0, 60, 100], [220, 20, 60], [153, 153, 153], [220, 220, 0]])

    def __init__(self, split: str = 'train', num_images: int = 300, size: tuple[int, int] = (160, 120), seed: int = 0,
                 **kwargs) -> None:
        check_positive('num_images of StreetScenesDataset', num_images)
        if not isinstance(size, (tuple, list)) or len(size) != 2:
            raise FedSegError(f'size of StreetScenesDataset must be (width, height), but is {size!r}')
        for side in size:
            check_positive('width and height of StreetScenesDataset', side)
        self.split, self.num_images, self.size, self.seed = split, num_images, (size[0], size[1]), seed
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        """One entry per scene; its paths name what is drawn."""
        return [
            dict(
                img_path=scene_path(self.split, index, self.size, self.seed),
                seg_map_path=scene_path(self.split, index, self.size, self.seed, label=True),
                label_map=self.label_map,
                reduce_zero_label=self.reduce_zero_label,
                seg_fields=[]) for index in range(self.num_images)
        ]
