"""The data preprocessor's change from BGR to RGB, for which a GPU need not wait."""
from types import MethodType

from mmseg.models.data_preprocessor import SegDataPreProcessor
from torch import nn


def flip_without_waiting(preprocessor: nn.Module) -> None:
    """Have a model's data preprocessor flip the channels where they are.

    MMSegmentation's picks them by a list: a copy to the device for every
    image, each of them waited for. The result is the same. A preprocessor with
    a ``forward`` of its own is left alone.
    """
    if isinstance(preprocessor, SegDataPreProcessor) and type(preprocessor).forward is SegDataPreProcessor.forward:
        preprocessor.forward = MethodType(_forward, preprocessor)


def _forward(preprocessor: SegDataPreProcessor, data: dict, training: bool = False) -> dict:
    stock = SegDataPreProcessor.forward
    if not preprocessor.channel_conversion:
        return stock(preprocessor, data, training)
    data = preprocessor.cast_data(data)  # a dict of its own
    if data['inputs'][0].size(0) == 3:
        data['inputs'] = [image.flip(0) for image in data['inputs']]
    preprocessor.channel_conversion = False
    try:
        return stock(preprocessor, data, training)
    finally:
        preprocessor.channel_conversion = True
