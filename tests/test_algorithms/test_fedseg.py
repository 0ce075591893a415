import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.hooks import Hook
from torch import nn

from fedseg_mm import FedSegError
from fedseg_mm.algorithms import FedSeg
from fedseg_mm.algorithms.fedseg import image_prototypes, mean_prototypes
from fedseg_mm.structures import Broadcast, ClientContext, FederationInfo
from tests.conftest import assert_same_bits, tiny_config
from tests.test_engine.test_federated_loop import model_weights, train
from tests.test_models.test_pixel_contrast_loss import by_definition

CLASSES, D = 4, 5


# --- prototypes -------------------------------------------------------------
def unit(vector):
    return vector / np.linalg.norm(vector)


def prototypes_by_loops(embeddings, labels):
    """Per image and class the mean of the pixels' unit vectors, of unit length: a list of (class, vector)."""
    found = []
    for image, label in zip(np.asarray(embeddings, np.float64), np.asarray(labels)):
        for cls in range(CLASSES):
            members = [unit(image[:, y, x]) for y, x in np.ndindex(*label.shape) if label[y, x] == cls]
            if members:
                found.append((cls, unit(np.mean(members, 0))))
    return found


def assert_equal_prototypes(found, expected, rtol=1e-9):
    """In any order within a class."""
    found = sorted((cls.item(), vector.tolist()) for vector, cls in zip(*found))
    expected = sorted((cls, vector.tolist()) for cls, vector in expected)
    assert [cls for cls, _ in found] == [cls for cls, _ in expected]
    np.testing.assert_allclose([vector for _, vector in found], [vector for _, vector in expected], rtol, atol=rtol)


def survey_batch(seed, images=2):
    """What a frozen model gives (features and logits, as channels of the "images"), and labels of twice the size."""
    rng = np.random.RandomState(seed)
    features, logits = rng.normal(0, 1, (images, D, 4, 3)), rng.normal(0, 3, (images, CLASSES, 4, 3))
    labels = rng.choice([0, 1, 254, 255], (images, 4, 3), p=[0.1, 0.1, 0.7, 0.1])
    return features, logits, labels


def maps_of(features, logits, at='head_input'):
    """What a model makes of a batch; the features that are not to be used are zero."""
    maps = dict(head_input=0 * features, embeddings=0 * features, logits=logits)
    return SimpleNamespace(**{**maps, 'embeddings' if at == 'classifier_input' else at: features})


class Frozen:
    """Stands in for the frozen model: its weights are named, its results are in the images."""

    def __init__(self, at):
        self.at = at

    def __call__(self, weights, images):
        assert weights == dict(name='global')
        return maps_of(images[:, :D], images[:, D:], self.at)

    def part(self, name, weights, features):
        assert name == 'projection_head' and weights == dict(name='global')
        return F.normalize(features, dim=1)


def as_batch(features, logits, labels):
    return torch.tensor(np.concatenate([features, logits], 1)), torch.tensor(labels.repeat(2, 1).repeat(2, 2))


def client(algorithm, batches, round=1, **given):
    algorithm.federation = FederationInfo(num_clients=3, num_classes=CLASSES, seed=0)
    model = nn.Module()
    model.projection_head = nn.Identity()
    return ClientContext(0, (0, 1), 10, Broadcast(round, dict(name='global')), model, Frozen(algorithm.features),
                         lambda: (as_batch(*batch) for batch in batches), **given)


def pseudo_by_loops(logits, labels, threshold, own=True, anchors='unannotated'):
    """The class of unannotated or all pixels where its probability reaches the threshold; else void."""
    pseudo = np.full_like(labels, 255)
    for n, y, x in np.ndindex(*labels.shape):
        p = np.exp(logits[n, :, y, x]) / np.exp(logits[n, :, y, x]).sum()
        label = labels[n, y, x]
        if anchors == 'unannotated' and label != 254 or label == 255 or p.max() < threshold:
            continue
        if own or label != 254 or p.argmax() not in (0, 1):
            pseudo[n, y, x] = p.argmax()
    return pseudo


def test_image_prototypes_equal_the_loops():
    rng = np.random.RandomState(0)
    embeddings, labels = rng.normal(0, 1, (3, D, 6, 5)), rng.choice([0, 1, 3, 200, 254, 255], (3, 6, 5))
    labels[1][labels[1] == 1] = 255  # not in every image
    for dtype in (torch.int64, torch.uint8):
        found = image_prototypes(torch.tensor(embeddings), torch.tensor(labels).to(dtype), CLASSES)
        assert_equal_prototypes(found, prototypes_by_loops(embeddings, labels))


def test_mean_prototypes_are_the_mean_of_the_images():
    prototypes, labels = torch.tensor([[1., 0], [0, 1], [0, 1], [0.6, 0.8]]), torch.tensor([2, 0, 2, 0])
    found = mean_prototypes(prototypes, labels)
    assert_equal_prototypes(found, [(2, unit(np.array([1., 1]))), (0, unit(np.array([0.6, 1.8])))], rtol=1e-6)


@pytest.mark.parametrize('own', [True, False])
@pytest.mark.parametrize('prototypes', ['image', 'mean'])
@pytest.mark.parametrize('threshold', [0.5, 0.8])
def test_prototypes_of_a_client(threshold, prototypes, own):
    """Of all its images; a pixel's class is its annotation, or the one of which the global model is sure."""
    batches = [survey_batch(0), survey_batch(1), survey_batch(2, images=1)]
    algorithm = FedSeg(threshold=threshold, prototypes=prototypes, own_pseudo_labels=own)
    context = client(algorithm, batches)
    algorithm.setup_client(context)
    expected = []
    for features, logits, labels in batches:
        pseudo = pseudo_by_loops(logits, labels, threshold, own)
        expected += prototypes_by_loops(features, np.where(labels == 254, pseudo, labels))
    assert {cls for cls, _ in expected} == set(range(CLASSES))
    if prototypes == 'mean':
        expected = [(cls, unit(np.mean([vector for other, vector in expected if other == cls], 0)))
                    for cls in range(CLASSES)]
    assert_equal_prototypes(context.memory['prototypes'], expected)


def test_a_probability_of_the_threshold_is_sure():
    """1/2 for each of two classes: the first is the arg-max."""
    features, logits, labels = np.ones((1, D, 1, 1)), np.full((1, CLASSES, 1, 1), -1e4), np.full((1, 1, 1), 254)
    logits[:, 2:] = 0
    for threshold, found in ((0.5, [2]), (0.5001, [])):
        context = client(algorithm := FedSeg(threshold=threshold), [(features, logits, labels)])
        algorithm.setup_client(context)
        assert context.memory['prototypes'][1].tolist() == found


# --- loss -------------------------------------------------------------------
@pytest.mark.parametrize('own', [True, False])
@pytest.mark.parametrize('at', ['head_input', 'classifier_input'])
@pytest.mark.parametrize('pseudo_anchors', ['all', 'unannotated'])
@pytest.mark.parametrize('terms', [('annotated', 'pseudo'), ('annotated', ), ('pseudo', )])
def test_both_terms_and_their_gradient_equal_the_definition(terms, pseudo_anchors, at, own):
    """Annotated pixels are anchors of one, pixels of whose class the global model is sure of the other."""
    features, logits, labels = survey_batch(3, images=3)
    algorithm = FedSeg(loss_weight=0.3, temperature=0.2, threshold=0.6, terms=terms, pseudo_anchors=pseudo_anchors,
                       features=at, own_pseudo_labels=own)
    embeddings = torch.randn(3, D, 4, 3, dtype=torch.float64, requires_grad=True)
    images, whole_labels = as_batch(features, logits, labels)
    context = client(algorithm, [survey_batch(0), survey_batch(1)], images=images, labels=whole_labels,
                     maps=maps_of(embeddings, None, at))
    algorithm.setup_client(context)
    losses = algorithm.local_loss(context)
    anchors = {'annotated': torch.tensor(labels),
               'pseudo': torch.tensor(pseudo_by_loops(logits, labels, 0.6, own, pseudo_anchors))}
    expected = {name: 0.3 * by_definition(embeddings, anchors[term], *context.memory['prototypes'], 0.2)
                for term, name in (('annotated', 'loss_contrast'), ('pseudo', 'loss_contrast_pseudo')) if term in terms}
    assert losses.keys() == expected.keys()
    for name, loss in losses.items():
        assert loss.item() == pytest.approx(expected[name].item(), rel=1e-10)
        gradient, reference = (torch.autograd.grad(value, embeddings, retain_graph=True)[0]
                               for value in (loss, expected[name]))
        torch.testing.assert_close(gradient, reference, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize('algorithm, round', [(FedSeg(), 0), (FedSeg(start_round=3), 2), (FedSeg(loss_weight=0), 5)])
def test_before_its_start_there_is_no_contrast(algorithm, round):
    context = client(algorithm, [survey_batch(0)], round)
    algorithm.setup_client(context)
    assert not algorithm.surveys(round) and not context.memory and algorithm.local_loss(context) == {}


# --- whole runs -------------------------------------------------------------
class Watch(Hook):
    """Keeps what every client surveyed and made of it, and its metrics."""

    def __init__(self):
        self.surveys, self.metrics = [], []

    def before_round(self, runner, cohort, broadcast):
        algorithm = runner.train_loop.federation.algorithm
        setup_client = type(algorithm).setup_client

        def watched(context):
            survey, seen = context.survey(), []
            context.survey = lambda: (seen.append(batch) or batch for batch in survey)
            setup_client(algorithm, context)
            weights = {name: tensor.clone() for name, tensor in context.broadcast.weights.items()}
            self.surveys.append((context.num_images, weights, seen, context.memory.get('prototypes')))

        algorithm.setup_client = watched

    def after_client(self, runner, update):
        self.metrics.append(dict(update.metrics))


def run(data, work_dir, *hooks, workers=0, **algorithm):
    return train(tiny_config(data, work_dir, **{
        'train_dataloader.num_workers': workers,
        'federated.algorithm': dict(type='FedSeg', embedding_channels=16, threshold=0., **algorithm),
        'federated.partitioner': dict(type='ClassPartitioner', num_clients=4, classes_per_client=2),
        'train_cfg.max_rounds': 2}), *hooks)


def test_prototypes_of_a_real_run(tiny_data, tmp_path):
    """In the second round, by hand from the images that were surveyed; contrast joins the loss from there on."""
    watch = Watch()
    runner = run(tiny_data, tmp_path, watch)
    assert len(watch.surveys) == len(watch.metrics) == 6
    assert not any(seen or prototypes for _, _, seen, prototypes in watch.surveys[:3])
    model = copy.deepcopy(runner.model).eval()
    entering = []
    model.backbone.register_forward_hook(lambda module, args, maps: entering.append(maps[-1]))
    for number, weights, seen, prototypes in watch.surveys[3:]:
        model.load_state_dict(weights)
        expected = []
        for images, labels in seen:
            with torch.no_grad():
                logits = model(images).double().numpy()
                embeddings = model.projection_head(entering.pop())
            labels = labels[:, 4::8, 4::8].numpy()
            pseudo = pseudo_by_loops(logits, labels, 0)
            expected += prototypes_by_loops(embeddings.numpy(), np.where(labels == 254, pseudo, labels))
        assert sum(len(images) for images, _ in seen) == number
        assert_equal_prototypes(prototypes, expected, rtol=1e-4)
    for place, metrics in enumerate(watch.metrics):
        names = {'loss_contrast', 'loss_contrast_pseudo'} & metrics.keys()
        assert len(names) == (0 if place < 3 else 2)
        assert metrics['loss'] == pytest.approx(
            metrics['decode.loss_back_ce'] + sum(metrics[name] for name in names), rel=1e-5)


@pytest.fixture(scope='module')
def fedavg(tiny_data, tmp_path_factory):
    """What FedAvg makes of it."""
    return model_weights(train(tiny_config(tiny_data, tmp_path_factory.mktemp('fedavg'), **{
        'federated.partitioner': dict(type='ClassPartitioner', num_clients=4, classes_per_client=2),
        'train_cfg.max_rounds': 2})))


def test_without_weight_it_is_fedavg_bit_for_bit(tiny_data, tmp_path, fedavg):
    assert_same_bits(model_weights(run(tiny_data, tmp_path, loss_weight=0, start_round=0)), fedavg)


def test_before_its_start_the_segmentor_is_fedavgs_bit_for_bit(tiny_data, tmp_path, fedavg):
    """The projection head has a generator of its own and is not trained yet."""
    weights = model_weights(run(tiny_data, tmp_path, start_round=99))
    segmentor = {name: tensor for name, tensor in weights.items() if not name.startswith('projection_head.')}
    assert len(segmentor) == len(weights) - 9
    assert_same_bits(segmentor, fedavg)


def test_contrast_changes_the_segmentor_and_trains_the_projection_head(tiny_data, tmp_path, fedavg):
    runner = run(tiny_data, tmp_path)
    weights = model_weights(runner)
    assert not all(torch.equal(tensor, weights[name]) for name, tensor in fedavg.items())
    name = 'projection_head.layers.3.weight'
    initial = weights[name].clone()
    runner.train_loop.federation.algorithm.setup_model(runner.model)  # the same seed
    assert not torch.equal(initial, runner.model.state_dict()[name])


def test_workers_do_not_change_weights(tiny_data, tmp_path):
    weights = []
    for workers in (0, 2, 4):
        watch = Watch()
        weights.append(model_weights(run(tiny_data, tmp_path / str(workers), watch, workers=workers, start_round=0)))
        assert all({'loss_contrast', 'loss_contrast_pseudo'} <= metrics.keys() for metrics in watch.metrics)
        assert any(metrics['loss_contrast_pseudo'] > 0 for metrics in watch.metrics)
    assert_same_bits(weights[0], weights[1])
    assert_same_bits(weights[0], weights[2])


def test_a_head_without_a_classifier_is_refused_before_training(tiny_data, tmp_path):
    cfg = tiny_config(tiny_data, tmp_path, **{'federated.algorithm': dict(type='FedSeg')})
    cfg.model.decode_head = dict(
        type='SegmenterMaskTransformerHead', in_channels=8, channels=8, num_classes=4, num_layers=1, num_heads=2,
        embed_dims=8, loss_decode=dict(type='BackCELoss'))
    with pytest.raises(FedSegError, match='SegmenterMaskTransformerHead does not classify pixel embeddings'):
        train(cfg)
    assert not list(tmp_path.glob('*.pth'))


@pytest.mark.parametrize('arguments, sentence', [
    (dict(loss_weight=-1), 'loss_weight must be a number at least 0'), (dict(threshold=2), 'threshold must be'),
    (dict(temperature=0), 'temperature must be a number above 0'), (dict(terms=('all', )), 'terms must be a list of'),
    (dict(prototypes='median'), "prototypes must be 'image' or 'mean'"),
    (dict(features='backbone'), "features must be 'head_input' or 'classifier_input'"),
    (dict(pseudo_anchors='annotated'), "pseudo_anchors must be 'all' or 'unannotated'")])
def test_arguments_out_of_range_are_refused(arguments, sentence):
    with pytest.raises(FedSegError, match=f'federated.algorithm.{sentence}'):
        FedSeg(**arguments)
