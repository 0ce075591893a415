import copy

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.models.data_preprocessor import SegDataPreProcessor
from mmseg.structures import SegDataSample

from fedseg_mm.models import flip_without_waiting


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('images', [
    [torch.randint(0, 256, (3, 6, 8), dtype=torch.uint8) for _ in range(2)],
    torch.randint(0, 256, (2, 3, 6, 8), dtype=torch.uint8), [torch.zeros(4, 6, 8)]], ids=['list', 'stacked', 'four'])
@pytest.mark.parametrize('options', [dict(bgr_to_rgb=True), dict(rgb_to_bgr=True), dict()])
def test_is_mmsegs_bit_for_bit(images, training, options):
    channels = len(images[0])
    preprocessor = SegDataPreProcessor(mean=[100., 110., 120., 1.][:channels], std=[50., 60., 70., 1.][:channels],
                                       size=(8, 8), **options)
    before = [image.clone() for image in images]
    labels = [SegDataSample(gt_sem_seg=PixelData(data=torch.zeros(1, 6, 8))) for _ in images]
    stock = preprocessor(dict(inputs=images, data_samples=labels), training)['inputs']
    flip_without_waiting(preprocessor)
    assert 'forward' in vars(preprocessor) and 'forward' not in vars(SegDataPreProcessor())
    for one in (preprocessor, copy.deepcopy(preprocessor)):
        found = one(dict(inputs=images, data_samples=labels), training)['inputs']
        assert all(map(torch.equal, found, stock)) and len(found) == len(images)
        assert one.channel_conversion == bool(options)
    assert all(map(torch.equal, images, before))


def test_a_fault_leaves_the_preprocessor_as_it_was():
    preprocessor = SegDataPreProcessor(bgr_to_rgb=True)
    flip_without_waiting(preprocessor)
    with pytest.raises(AssertionError):  # no labels
        preprocessor(dict(inputs=[torch.zeros(3, 4, 4)]), True)
    assert preprocessor.channel_conversion
