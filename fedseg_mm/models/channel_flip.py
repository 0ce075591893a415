"""The data preprocessor's change from BGR to RGB, for which a GPU need not wait."""
from mmseg.models.data_preprocessor import SegDataPreProcessor

_forward = SegDataPreProcessor.forward


def forward(self: SegDataPreProcessor, data: dict, training: bool = False) -> dict:
    """MMSegmentation's, which picks the channels by a list: a copy to the device for every image, each waited for."""
    if not self.channel_conversion:
        return _forward(self, data, training)
    data = self.cast_data(data)  # a dict of its own
    if data['inputs'][0].size(0) == 3:
        data['inputs'] = [image.flip(0) for image in data['inputs']]
    self.channel_conversion = False
    try:
        return _forward(self, data, training)
    finally:
        self.channel_conversion = True


SegDataPreProcessor.forward = forward
