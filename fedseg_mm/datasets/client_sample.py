"""A client's image on its way from a worker process to the model's device."""
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import nn


class ClientSample(SegDataSample):
    """MMSegmentation's sample, with labels of a byte per pixel instead of eight until they are on the device."""

    @classmethod
    def of(cls, sample: SegDataSample) -> 'ClientSample':
        """The same sample with narrow labels."""
        narrow = cls(metainfo=dict(sample.metainfo_items()))
        for name, value in sample.items():
            setattr(narrow, name, value)
        labels = sample.gt_sem_seg.data
        if labels.dtype == torch.int64:  # MaskToClient has made sure that they are bytes
            narrow.gt_sem_seg = PixelData(data=labels.to(torch.uint8))
        return narrow

    def pin_memory(self) -> 'ClientSample':
        """As torch's DataLoader calls it with ``pin_memory=True``, which knows tensors only."""
        pinned = self.new()
        for name, value in self.items():
            if isinstance(value, PixelData):
                value = PixelData(metainfo=dict(value.metainfo_items()),
                                  **{key: tensor.pin_memory() if isinstance(tensor, torch.Tensor) else tensor
                                     for key, tensor in value.items()})
            setattr(pinned, name, value)
        return pinned


def widen_labels(preprocessor: nn.Module, args: tuple, data: dict) -> None:
    """A hook of a data preprocessor: on their device, labels become integers, which MMSegmentation's losses ask for."""
    for sample in data.get('data_samples') or ():
        if isinstance(sample, ClientSample) and sample.gt_sem_seg.data.dtype == torch.uint8:
            sample.gt_sem_seg.data = sample.gt_sem_seg.data.long()
