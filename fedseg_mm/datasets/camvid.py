"""CamVid with the 11 classes that the literature compares on."""
from pathlib import Path

from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS


@DATASETS.register_module()
class CamVidDataset(BaseSegDataset):
    """CamVid (Brostow et al., 2009), 11 classes, in MMSegmentation's layout.

    ``img_dir/{train,val,test}/*.jpg`` or ``*.png``, and
    ``ann_dir/{train,val,test}/*.png``; labels 0 to 10, and 255 for void.

    Args:
        img_suffix (str, optional): How the images' names end. Defaults to
            None: '.png' where the folder holds such images, else '.jpg'.
        kwargs: Further arguments of MMSegmentation's BaseSegDataset.
    """
    METAINFO = dict(
        classes=('sky', 'building', 'pole', 'road', 'pavement', 'tree', 'sign symbol', 'fence', 'car', 'pedestrian',
                 'bicyclist'),
        palette=[[128, 128, 128], [128, 0, 0], [192, 192, 128], [128, 64, 128], [60, 40, 222], [128, 128, 0],
                 [192, 128, 128], [64, 64, 128], [64, 0, 128], [64, 64, 0], [0, 128, 192]])

    def __init__(self, img_suffix: str | None = None, seg_map_suffix: str = '.png', **kwargs) -> None:
        if img_suffix is None:
            folder = Path(kwargs.get('data_root') or '', (kwargs.get('data_prefix') or {}).get('img_path') or '')
            img_suffix = '.png' if any(folder.glob('*.png')) else '.jpg'
        super().__init__(img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs)
