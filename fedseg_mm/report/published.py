"""FedSeg's published figures, and which of them a run may be read beside."""
from collections.abc import Mapping

#: Columns of the paper's table (FedSeg, CVPR 2023): data set, annotated classes per client.
COLUMNS = (('Cityscapes', 1), ('Cityscapes', 2), ('CamVid', 1), ('CamVid', 2), ('PascalVOC', 1), ('ADE20K', 1))
#: Row -> mIoU and pixel accuracy in percent, by column; None where the paper has none.
ROWS: dict[str, tuple[str | None, ...]] = {
    'CE': ('10.40 / 31.90', '28.60 / 73.76', '19.06 / 51.71', '32.12 / 69.55', '8.56 / 34.44', '6.91 / 59.25'),
    'BackCE': ('45.08 / 87.98', '47.67 / 89.48', '58.38 / 88.51', '62.13 / 90.00', '32.28 / 54.83', '8.31 / 61.60'),
    'FedProx': ('44.85 / 87.50', '47.17 / 89.81', '58.29 / 87.28', '62.04 / 90.61', '32.17 / 55.19', '8.25 / 61.01'),
    'FedDyn': ('45.19 / 88.26', '47.69 / 90.38', '59.44 / 89.32', '62.18 / 90.20', '32.20 / 54.59', None),
    'MOON': ('45.84 / 88.58', '47.87 / 89.59', '58.90 / 87.96', '62.77 / 90.98', '30.92 / 53.91', None),
    'FedSeg': ('50.24 / 90.06', '52.18 / 91.38', '63.50 / 90.68', '64.67 / 91.25', '32.20 / 54.50', '8.64 / 62.10')
}
LOSS = 'model.decode_head.loss_decode'


def published(row: str, data: str, classes_per_client: int) -> str | None:
    """mIoU / pixel accuracy of a row of the paper; None where it has none."""
    column = (data, classes_per_client)
    return ROWS[row][COLUMNS.index(column)] if row in ROWS and column in COLUMNS else None


def published_beside(settings: Mapping[str, object]) -> str | None:
    """The paper's mIoU / pixel accuracy for a run's data, split and method; its model and schedule may be others.

    Args:
        settings (Mapping[str, object]): Dotted keys of the run's config.
    """
    partitioner, kind = 'federated.partitioner', settings.get('test_dataloader.dataset.type')
    if settings.get(f'{partitioner}.type') != 'ClassPartitioner' or not isinstance(kind, str):
        return None
    losses = {str(value) for key, value in settings.items() if key.startswith(LOSS) and key.endswith('.type')}
    method = str(settings.get('federated.algorithm.type', 'FedAvg'))
    if losses == {'CrossEntropyLoss'} and method == 'FedAvg':
        row = 'CE'
    elif losses == {'BackCELoss'} and settings.get(f'{LOSS}.balance_power', 1) == 1:
        row = 'BackCE' if method == 'FedAvg' else method
    else:
        return None
    classes = settings.get(f'{partitioner}.classes_per_client', 1)
    return published(row, kind.removesuffix('Dataset'), classes if isinstance(classes, int) else 0)
