import pytest
import torch
from mmseg.models.decode_heads import DDRHead, FCNHead, PIDHead, ddr_head, decode_head, pid_head
from mmseg.models.losses.accuracy import accuracy as mmseg_accuracy
from torch import nn

from fedseg_mm.models.accuracy import accuracy, accuracy_without_waiting


@pytest.mark.parametrize('ignore_index', [None, 255])
@pytest.mark.parametrize('void', [0.0, 0.3, 1.0])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float64])
def test_is_mmsegs_bit_for_bit(ignore_index, void, dtype):
    torch.manual_seed(0)
    scores = torch.randn(3, 7, 40, 50).to(dtype)
    scores += torch.rand(1, 7, 1, 1) / 100  # no two are equal, of which either is the greatest
    labels = torch.where(torch.rand(3, 40, 50) < 0.5, scores.argmax(1), torch.randint(0, 7, (3, 40, 50)))
    labels[torch.rand(labels.shape) < void] = 255
    ours, theirs = (function(scores, labels, ignore_index=ignore_index) for function in (accuracy, mmseg_accuracy))
    if dtype == torch.bfloat16:  # of equal scores, sorting and the maximum may name different ones
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1)
    else:
        assert torch.equal(ours, theirs) and ours.shape == theirs.shape == (1, )


def test_by_hand():
    scores = torch.tensor([[[[1., 0, 0, 9]], [[0., 1, 1, 0]]]])
    assert accuracy(scores, torch.tensor([[[0, 1, 0, 255]]]), ignore_index=255).item() == pytest.approx(200 / 3)
    assert accuracy(scores, torch.tensor([[[0, 1, 0, 255]]])).item() == pytest.approx(50)


def test_what_no_head_asks_for_is_left_to_mmseg():
    scores, labels = torch.randn(20, 5), torch.randint(0, 5, (20, ))
    for options in (dict(topk=(1, 2)), dict(thresh=0.5), dict(topk=3)):
        ours, theirs = accuracy(scores, labels, **options), mmseg_accuracy(scores, labels, **options)
        assert torch.equal(torch.stack(list(ours)), torch.stack(list(theirs)))
    assert accuracy(scores[:0], labels[:0]).item() == 0


@pytest.mark.parametrize('head, module', [(PIDHead, pid_head), (DDRHead, ddr_head), (FCNHead, decode_head)])
def test_heads_use_it_while_it_is_entered(head, module):
    model = nn.ModuleList([head.__new__(head)])
    nn.Module.__init__(model[0])
    for _ in range(2):
        with accuracy_without_waiting(model), accuracy_without_waiting(model):
            assert module.accuracy is accuracy
        assert module.accuracy is decode_head.accuracy is mmseg_accuracy
