"""What images are called in manifests."""
import os.path as osp

from fedseg_mm.datasets.label_scan import plain_datasets


class ImageNames(list):
    """Names of images by index.

    Args:
        names (list[str]): Paths below ``root``.
        root (str, optional): The folder, with a final slash. Defaults to
            None: there is none.
    """

    def __init__(self, names: list[str], root: str | None = None) -> None:
        super().__init__(names)
        self.root = root


def image_names(dataset) -> ImageNames:
    """The path of every image below the data set's folder, the same on every machine.

    Where data sets of several folders are joined, below the folder that holds
    them all.

    Args:
        dataset (BaseDataset or ConcatDataset): MMSegmentation's data set.

    Returns:
        ImageNames: By index; paths outside the folder and addresses
        (``s3://…``) are given whole.
    """
    parts = plain_datasets(dataset)
    roots = [osp.abspath(part.data_root) for part in parts if part.data_root and '://' not in part.data_root]
    root = osp.join(osp.commonpath(roots), '') if roots else None
    names = []
    for index in range(len(dataset)):
        path = dataset.get_data_info(index).get('img_path', str(index))
        whole = osp.abspath(path) if root and '://' not in path else path
        names.append(whole[len(root):] if root and whole.startswith(root) else path)
    return ImageNames(names, root)
