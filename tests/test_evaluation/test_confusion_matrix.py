"""Figures of a confusion matrix, against pixels counted one by one."""
import numpy as np
import pytest
import torch

from fedseg_mm.evaluation import ConfusionMatrix, class_iou, mean_iou, pixel_accuracy, read_matrix, write_matrix


def sample(label, prediction, **info) -> dict:
    return dict(gt_sem_seg=dict(data=torch.as_tensor(label, dtype=torch.uint8)[None]),
                pred_sem_seg=dict(data=torch.as_tensor(prediction, dtype=torch.int64)[None]), **info)


@pytest.fixture
def metric():
    metric = ConfusionMatrix()
    metric.dataset_meta = dict(classes=('sky', 'road', 'car'))
    return metric


def test_pixels_are_counted_by_client_and_without_void_or_unannotated_ones(metric):
    rng = np.random.RandomState(0)
    labels = rng.choice([0, 1, 2, 254, 255], (4, 6, 5))
    predictions = rng.randint(0, 3, (4, 6, 5))
    clients = [0, 7, 0, 7]
    for label, prediction, client in zip(labels, predictions, clients):
        metric.process({}, [sample(label, prediction, client=client)])
    assert metric.evaluate(4) == {}
    for client in (0, 7):
        expected = np.zeros((3, 3), int)
        for label, prediction, held_by in zip(labels, predictions, clients):
            for truth, guess in zip(label.ravel(), prediction.ravel()):
                if held_by == client and truth < 3:
                    expected[truth, guess] += 1
        assert (metric.matrices[client] == expected).all()
    assert set(metric.matrices) == {0, 7}


def test_many_classes_do_not_overflow_the_labels_type(metric):
    metric.dataset_meta = dict(classes=tuple(map(str, range(150))))
    metric.process({}, [sample([[149, 3]], [[149, 149]])])
    metric.evaluate(1)
    assert metric.matrices[0][149, 149] == metric.matrices[0][3, 149] == 1 and metric.matrices[0].sum() == 2


def test_figures():
    matrix = np.array([[6, 2, 0], [0, 2, 0], [0, 0, 0]])
    assert np.allclose(class_iou(matrix), [75, 50, np.nan], equal_nan=True)
    assert mean_iou(matrix) == 62.5 and mean_iou(matrix, [1]) == 50 and mean_iou(matrix, [2]) is None
    assert pixel_accuracy(matrix) == 80 and pixel_accuracy(np.zeros((2, 2), int)) is None


def test_the_file_gives_the_matrix_back(tmp_path):
    matrix, names = np.arange(9).reshape(3, 3) * 10**10, ['sky, or "air"', 'road', 'car']
    write_matrix(matrix, names, tmp_path / 'confusion.csv')
    read, classes = read_matrix(tmp_path / 'confusion.csv')
    assert (read == matrix).all() and classes == names
    for text in ('truth,a\nb,2\n', 'damaged', '', 'truth,a\na,2,3\n', 'truth,a\na,x\n'):
        (tmp_path / 'confusion.csv').write_text(text)
        with pytest.raises(ValueError):
            read_matrix(tmp_path / 'confusion.csv')
