"""Labels travel as bytes, and are pinned with the images."""
import pickle

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.registry import DATASETS, MODELS
from mmseg.structures import SegDataSample

from fedseg_mm.datasets import ClientDataset, SampleKey
from fedseg_mm.datasets.client_sample import ClientSample, widen_labels
from tests.conftest import tiny_config


def packed(**fields) -> SegDataSample:
    sample = SegDataSample(metainfo=dict(img_path='a.png', img_shape=(4, 5)))
    sample.gt_sem_seg = PixelData(data=torch.tensor([[[0, 3, 254, 255]]]))
    for name, value in fields.items():
        setattr(sample, name, value)
    return sample


def test_labels_are_bytes_and_the_rest_is_as_it_was():
    edges = PixelData(data=torch.ones(1, 1, 4, dtype=torch.int64))
    sample = ClientSample.of(packed(gt_edge_map=edges))
    assert sample.gt_sem_seg.data.dtype == torch.uint8
    assert sample.gt_sem_seg.data.tolist() == [[[0, 3, 254, 255]]]
    assert sample.gt_edge_map.data.dtype == torch.int64
    assert sample.metainfo == dict(img_path='a.png', img_shape=(4, 5))
    assert isinstance(sample, SegDataSample) and isinstance(sample.to('cpu'), ClientSample)
    again = pickle.loads(pickle.dumps(sample))  # from worker processes
    assert torch.equal(again.gt_sem_seg.data, sample.gt_sem_seg.data) and again.metainfo == sample.metainfo


def test_all_tensors_are_pinned(monkeypatch):
    """As torch's loader does with ``pin_memory=True``, which passes over classes that it does not know."""
    pinned = []

    def pin(tensor, *args):
        pinned.append(tensor.data_ptr())
        return tensor.clone()

    monkeypatch.setattr(torch.Tensor, 'pin_memory', pin)
    sample = ClientSample.of(packed(gt_edge_map=PixelData(data=torch.ones(1, 1, 4))))
    from torch.utils.data._utils.pin_memory import pin_memory
    batch = pin_memory(dict(inputs=[torch.zeros(3, 1, 4, dtype=torch.uint8)], data_samples=[sample]))
    after, = batch['data_samples']
    assert sample.gt_sem_seg.data.data_ptr() in pinned and sample.gt_edge_map.data.data_ptr() in pinned
    assert len(pinned) == 3
    assert isinstance(after, ClientSample) and after.metainfo == sample.metainfo
    assert torch.equal(after.gt_sem_seg.data, sample.gt_sem_seg.data)
    assert after.gt_sem_seg.data.data_ptr() not in pinned  # the pinned ones


@pytest.fixture
def client_data(tiny_data, tmp_path):
    return ClientDataset(DATASETS.build(tiny_config(tiny_data, tmp_path).train_dataloader.dataset))


def test_a_client_s_image_reaches_the_model_as_mmseg_packs_it(client_data, tiny_data, tmp_path):
    """Padded on the device, with void, and integers after it."""
    sample = client_data[SampleKey(3, (0, ), 0)]
    label = sample['data_samples'].gt_sem_seg.data.clone()
    assert label.dtype == torch.uint8 and set(label.unique().tolist()) <= {0, 254, 255}
    preprocessor = MODELS.build(dict(tiny_config(tiny_data, tmp_path).model.data_preprocessor, size=(60, 64)))
    preprocessor.register_forward_hook(widen_labels)
    after = preprocessor(dict(inputs=[sample['inputs']], data_samples=[sample['data_samples']]), True)
    wide = after['data_samples'][0].gt_sem_seg.data
    assert wide.dtype == torch.int64 and wide.shape == (1, 60, 64)
    assert torch.equal(wide[:, :label.shape[1]], label.long()) and (wide[:, 48:] == 255).all()
    # other samples are none of its business
    stock = preprocessor(dict(inputs=[sample['inputs']], data_samples=[packed(
        gt_sem_seg=PixelData(data=label))]), True)['data_samples'][0]
    assert stock.gt_sem_seg.data.dtype == torch.uint8
