import json

import cv2
import numpy as np
import pytest
import torch
from mmengine.hooks import Hook

from fedseg_mm import FedSegError
from fedseg_mm.algorithms import Centralised
from fedseg_mm.models import BackCELoss
from tests.conftest import CLASSES, assert_same_bits, tiny_config
from tests.test_engine.test_federated_loop import model_weights, train
from tests.test_models.test_back_ce_loss import C, batch, closed_form

#: Annotated classes of four clients with six images each, in the order of the data set.
ANNOTATED = [(0, ), (1, 2), (3, ), (0, 1, 2, 3)]


def config(data, work_dir, clients, algorithm, **changes):
    """A federation as the manifest ``clients`` says."""
    work_dir.mkdir(parents=True)
    (work_dir / 'clients.json').write_text(json.dumps(dict(clients=clients)))
    return tiny_config(data, work_dir, **{
        'federated.partitioner': dict(type='ManifestPartitioner', manifest=str(work_dir / 'clients.json'),
                                      _delete_=True),
        'federated.clients_per_round': 1, 'federated.local_epochs': 1, 'federated.algorithm': algorithm,
        'train_cfg.max_rounds': 2, **changes})


def four_clients():
    return [dict(images=[f'*/{i:03d}.png' for i in range(6 * place, 6 * place + 6)],
                 classes=[CLASSES[cls] for cls in classes]) for place, classes in enumerate(ANNOTATED)]


def test_with_all_labels_it_is_one_client_with_all_images_bit_for_bit(tiny_data, tmp_path):
    pooled = train(config(tiny_data, tmp_path / 'pooled', four_clients(), dict(type='Centralised')))
    one = train(config(tiny_data, tmp_path / 'one', [dict(images='./')], dict(type='FedAvg')))
    assert_same_bits(model_weights(pooled), model_weights(one))
    assert len(pooled.train_loop.federation.partition) == 4  # the partition stays what it was


def weighted_mean(logits, label, classes):
    """The closed form of every image with its own classes, weighted by its pixels that count."""
    parts = [(*closed_form(one[None], lab[None], set(own)),
              np.sum((lab != 255) & ((lab != 254) | (len(own) < logits.shape[1]))))
             for one, lab, own in zip(logits, label, classes)]
    counted = sum(count for *_, count in parts)
    return (sum(value * count for value, _, count in parts) / counted,
            np.concatenate([gradient * count for _, gradient, count in parts]) / counted)


def test_back_ce_with_the_classes_of_each_image():
    logits, label = (np.concatenate(arrays)[:3] for arrays in zip(batch(0), batch(1)))
    classes = [(1, 4), (0, ), tuple(range(C))]
    expected, gradient = weighted_mean(logits, label, classes)
    loss = BackCELoss()
    loss.set_annotated_classes(*classes)
    z = torch.tensor(logits, requires_grad=True)
    value = loss(z, torch.tensor(label))
    value.backward()
    assert value.item() == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(z.grad.numpy(), gradient, rtol=1e-9, atol=1e-14)
    with pytest.raises(ValueError, match='named for 3 images, but there are 2'):
        loss(z[:2], torch.tensor(label)[:2])


class Batches(Hook):
    """Keeps the images, the logits and the loss of every batch."""

    def __init__(self):
        self.seen = []

    def before_train(self, runner):
        def keep_paths(model, args, kwargs):
            if kwargs.get('mode') == 'loss':
                self.paths = [sample.img_path for sample in kwargs['data_samples']]

        def keep_loss(loss, args, output):
            if torch.is_grad_enabled():
                self.seen.append((self.paths, args[0].detach().double().numpy(), output.item()))

        runner.model.register_forward_pre_hook(keep_paths, with_kwargs=True)
        runner.model.decode_head.loss_decode.register_forward_hook(keep_loss)


@pytest.mark.parametrize('labels', ['masked', 'full'])
def test_every_image_has_its_own_clients_classes(tiny_data, tmp_path, labels):
    """BackCE of batches that mix clients, by hand from the label files."""
    cfg = config(tiny_data, tmp_path / 'run', four_clients(), dict(type='Centralised', labels=labels), **{
        'train_cfg.max_rounds': 1, 'train_dataloader.batch_size': 4})
    cfg.train_dataloader.dataset.pipeline = [
        dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
    batches = Batches()
    train(cfg, batches)
    images = [int(path[-7:-4]) for paths, *_ in batches.seen for path in paths]
    assert sorted(images) == list(range(24))
    assert any(len({int(path[-7:-4]) // 6 for path in paths}) > 2 for paths, *_ in batches.seen)
    for paths, logits, value in batches.seen:
        label, classes = [], []
        for path in paths:
            classes.append(ANNOTATED[int(path[-7:-4]) // 6] if labels == 'masked' else range(4))
            whole = cv2.imread(path.replace('img_dir', 'ann_dir'), cv2.IMREAD_UNCHANGED)
            label.append(np.where(np.isin(whole, [*classes[-1], 255]), whole, 254))
        expected, _ = weighted_mean(logits, np.array(label), classes)
        assert value == pytest.approx(expected, rel=1e-5)


def test_other_labels_are_refused():
    with pytest.raises(FedSegError, match="federated.algorithm.labels must be 'full' or 'masked', but is 'half'"):
        Centralised(labels='half')
