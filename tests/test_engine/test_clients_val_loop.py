import json

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.runner import Runner
from mmseg.registry import MODELS

from fedseg_mm import FedSegError
from tests.conftest import assert_same_bits, tiny_config
from tests.test_engine.test_federated_loop import model_weights, train


def config(data, work_dir, **changes):
    """Three clients, of which one has not trained after the only round."""
    return tiny_config(data, work_dir, **{
        'federated.algorithm': dict(type='LocalOnly'), 'federated.clients_per_round': 2,
        'federated.partitioner': dict(type='ClassPartitioner', num_clients=3, classes_per_client=2),
        'federated.local_epochs': 4, 'train_cfg.max_rounds': 1, 'train_cfg.val_interval': 1,
        'optim_wrapper.optimizer.lr': 0.2, 'param_scheduler': [], 'val_cfg': dict(type='ClientsValLoop'), **changes})


def by_hand(cfg, weights, data) -> dict:
    """Evaluates one model on the test images: sums of intersections and unions over all of them."""
    model = MODELS.build(cfg.model).eval()
    model.load_state_dict(weights)
    confusion = np.zeros((4, 4))
    for path in sorted((data / 'img_dir' / 'test').glob('*.png')):
        image = torch.tensor(cv2.imread(str(path))).permute(2, 0, 1)[None].float()
        with torch.no_grad():
            logits = model.decode_head(model.backbone((image - 128) / 60))
        predicted = F.interpolate(logits, size=image.shape[2:], mode='bilinear').argmax(1)[0].numpy()
        label = cv2.imread(str(data / 'ann_dir' / 'test' / path.name), cv2.IMREAD_UNCHANGED)
        np.add.at(confusion, (label[label < 4], predicted[label < 4]), 1)
    right, labelled, found = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    with np.errstate(invalid='ignore'):
        return dict(aAcc=100 * right.sum() / confusion.sum(), mIoU=100 * np.nanmean(right / (labelled + found - right)),
                    mAcc=100 * np.nanmean(right / labelled))


def test_figures_are_those_of_each_client_evaluated_by_hand(tiny_data, tmp_path):
    cfg = config(tiny_data, tmp_path)
    runner = train(cfg)
    store = runner.train_loop.federation.backend.store
    initial = model_weights(runner)  # the global model
    models = [store.load(client).get('weights', initial) for client in range(3)]
    assert sum(weights is initial for weights in models) == 1
    expected = [by_hand(cfg, weights, tiny_data) for weights in models]
    assert len({round(figures['mIoU'], 2) for figures in expected}) == 3

    folder, = tmp_path.glob('*/vis_data')
    line, = (json.loads(line) for line in (folder / 'clients.json').open())
    assert line['round'] == 1
    logged = [json.loads(line) for line in (folder / 'scalars.json').open()][-1]
    for name in ('aAcc', 'mIoU', 'mAcc'):
        values = [figures[name] for figures in expected]
        assert [figures[name] for figures in line['clients']] == pytest.approx(values, abs=0.0051)  # two decimals
        mean = sum(values) / 3
        spread = dict(_std=(sum((value - mean)**2 for value in values) / 3)**0.5, _min=min(values), _max=max(values))
        for suffix, value in {'': mean, **spread}.items():
            assert logged[name + suffix] == pytest.approx(value, abs=0.011)
    assert runner.message_hub.get_info('best_score') == pytest.approx(logged['mIoU'])
    assert (tmp_path / 'best_mIoU_round_1.pth').is_file()


def test_afterwards_the_model_is_the_global_one(tiny_data, tmp_path):
    """The next round must not start from the last client's."""
    with_figures, without = (
        train(config(tiny_data, tmp_path / name, **{
            'train_cfg.max_rounds': 2, 'train_cfg.val_interval': interval, 'federated.local_epochs': 1,
            'federated.algorithm': dict(type='FedBN')}))
        for name, interval in (('every round', 1), ('at the end', 2)))
    assert_same_bits(model_weights(with_figures), model_weights(without))
    assert_same_bits(model_weights(without), without.train_loop.federation.algorithm.weights)


def test_without_a_training_it_is_refused(tiny_data, tmp_path):
    cfg = config(tiny_data, tmp_path)
    for key in ('train_cfg', 'train_dataloader', 'optim_wrapper', 'param_scheduler', 'federated'):
        cfg.pop(key)
    cfg.experiment_name = 'no_training'
    with pytest.raises(FedSegError, match='ClientsValLoop evaluates clients during a federated training'):
        Runner.from_cfg(cfg).val()
