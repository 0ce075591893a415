"""What a config may say that cannot be trained, and the one sentence that each is answered with, before training."""
import pytest

from fedseg_mm.registry import PARTITIONERS
from tests.conftest import write_config
from tests.test_cli.test_train_errors import refuse_quickly

#: What is changed in a config that trains, and the sentence; DATA is the data's folder, and WORK the work dir.
BAD_INPUTS = [
    ({'train_dataloader.dataset.data_root': 'nowhere'},
     'the data folder nowhere does not exist: put or link the data set there, or set '
     'train_dataloader.dataset.data_root'),
    ({'val_dataloader.dataset.data_prefix.img_path': 'typo'},
     'the data folder DATA/typo does not exist (val_dataloader.dataset.data_prefix.img_path)'),
    ({'federated.client_per_round': 3},
     'unknown key `client_per_round` in federated: did you mean `clients_per_round`?'),
    ({'federated.partitioner.num_client': 3},
     'unknown key `num_client` in federated.partitioner: did you mean `num_clients`?'),
    ({'federated.partitioner.type': 'ClasPartitioner'},
     'unknown type `ClasPartitioner` in federated.partitioner: did you mean `ClassPartitioner`?'),
    ({'federated.algorithm': {'type': 'FedAverage'}},
     'unknown type `FedAverage` in federated.algorithm: did you mean `FedAvg`?'),
    ({'federated.algorithm': {'type': 'FedAvg', 'mu': 1}},
     'unknown key `mu` in federated.algorithm: known keys are batch_norm, weighting'),
    ({'train_cfg.max_round': 3},
     'unknown key `max_round` in train_cfg: did you mean `max_rounds`?'),
    ({'train_cfg.type': 'IterBasedTrainLoop'},
     "a federated config trains in rounds: set train_cfg = dict(type='FederatedTrainLoop', "
     'max_rounds=..., val_interval=...)'),
    ({'train_cfg.max_rounds': 0},
     'train_cfg.max_rounds must be an integer of at least 1, but is 0'),
    ({'train_cfg.max_rounds': 2.5},
     'train_cfg.max_rounds must be an integer of at least 1, but is 2.5'),
    ({'train_cfg.val_interval': 0},
     'train_cfg.val_interval must be an integer of at least 1, but is 0'),
    ({'train_dataloader.batch_size': 'abc'},
     "train_dataloader.batch_size must be an integer of at least 1, but is 'abc'"),
    ({'federated': 1},
     'federated must be a dict, but is 1'),
    ({'model.backbone.type': 'FastCNN'},
     'FastCNN is not in the mmseg::model registry: did you mean FastSCNN?'),
    ({'train_dataloader.dataset.img_suffix': '.jpeg'},
     'train_dataloader.dataset finds no image ending in .jpeg in DATA/img_dir/train: check its '
     'data_prefix, and its img_suffix, which must end the names of the images'),
    ({'val_dataloader.dataset.img_suffix': '.jpeg'},
     'val_dataloader.dataset finds no image ending in .jpeg in DATA/img_dir/test: check its data_prefix, '
     'and its img_suffix, which must end the names of the images'),
    ({'train_dataloader.batchsize': 3},
     'unknown key `batchsize` in train_dataloader: did you mean `batch_size`?'),
    ({'train_dataloader.batch_size': 1},
     'batch normalisation cannot train on batches of one image: set train_dataloader.batch_size to at '
     'least 2, or use another norm_cfg, such as GN'),
    ({'federated.partitioner.num_clients': 25},
     'num_clients=25 is more than the 24 images that show a class: use fewer clients'),
    ({'federated.clients_per_round': 9},
     'federated.clients_per_round=9 must be between 1 and 8, the number of clients of the '
     'federation'),
    ({'federated.algorithm': 'FedProx'},
     "federated.algorithm must be a dict with a `type`, but is 'FedProx'"),
    ({'federated.algorithm': {'type': 'FedAdam', 'betas': 0.9}},
     'federated.algorithm.betas must be two numbers, but is 0.9'),
    ({'federated.algorithm': {'type': 'FedAvg', 'batch_norm': ['local']}},
     'federated.algorithm.batch_norm must be one of average, local_statistics, local, recalibrate, but is '
     "['local']"),
    ({'federated.algorithm': {'type': 'FedSeg', 'terms': 5}},
     "federated.algorithm.terms must be a list of 'annotated' and 'pseudo', but is 5"),
    ({'federated.algorithm': {'type': 'FedSeg', 'start_round': 1.5}},
     'federated.algorithm.start_round must be an integer of at least 0, but is 1.5'),
    ({'federated.algorithm': {'type': 'FedSeg', 'loss_wieght': 1}},
     'unknown key `loss_wieght` in federated.algorithm: did you mean `loss_weight`?'),
    ({'federated.algorithm': {'type': 'FedProx', 'mu': 'abc'}},
     "federated.algorithm.mu must be a number at least 0, but is 'abc'"),
    ({'federated.partitioner': ''},
     "federated.partitioner must name a partition manifest or be a dict, but is ''"),
    ({'federated.partitioner': 'ClassPartitioner'},
     'there is no partition manifest ClassPartitioner; for the partitioner of that name, write '
     "federated.partitioner=dict(type='ClassPartitioner', ...)"),
    ({'federated.partitioner.type': 5},
     'unknown type `5` in federated.partitioner: known types are PARTITIONERS'),
    ({'federated.partitioner.seed': 4294967296},
     '`seed` of ClassPartitioner must be below 4294967296, but is 4294967296'),
    ({'randomness.seed': -1},
     'randomness.seed must be an integer from 0 to 4294967295, but is -1'),
    ({'optim_wrapper.optimizer.type': 'Sgd', 'optim_wrapper.constructor': 'FlatNoDecayConstructor'},
     'unknown type `Sgd` in optim_wrapper.optimizer: did you mean `SGD`?'),
    ({'model.data_preprocessor.size': None},
     'model.data_preprocessor has no `size`, to which images of a batch are padded: set '
     "model.data_preprocessor.size to the train pipeline's crop size"),
    ({'federated.clients_per_round': 0},
     'federated.clients_per_round must be an integer of at least 1, but is 0'),
    ({'federated.local_epochs': 1.5},
     'federated.local_epochs must be an integer of at least 1, but is 1.5'),
    ({'federated.partitioner.classes_per_client': 5},
     'classes_per_client=5 is more than the 4 classes: lower classes_per_client'),
    ({'federated': None},
     'WORK/config.py has no `federated = dict(...)`: inherit one from configs/_base_/federated/, or write '
     'your own'),
    ({'model.decode_head.num_classes': 19},
     'model.decode_head has num_classes=19, but the data set has 4 classes: set '
     'model.decode_head.num_classes=4'),
    ({'model.backbone.norm_cfg': {'typ': 'BN'}},
     'unknown key `typ` in model.backbone.norm_cfg: did you mean `type`?'),
    ({'model.backbone.norm_cfg': {'type': 'BNN'}},
     'unknown type `BNN` in model.backbone.norm_cfg: did you mean `BN`?'),
    ({'model.backbone.norm_cfg': {'type': 'GN'}},
     'model.backbone.norm_cfg of type GN needs `num_groups`, which is not given'),
    ({'model.decode_head.norm_cfg': {'type': 'BN', 'requires_gradd': True}},
     'unknown key `requires_gradd` in model.decode_head.norm_cfg: did you mean `requires_grad`?'),
    ({'model.decode_head.loss_decode': {'type': 'BackCELos'}},
     'unknown type `BackCELos` in model.decode_head.loss_decode: did you mean `BackCELoss`?'),
    ({'model.decode_head.loss_decode': {'type': 'BackCELoss', 'los_weight': 1}},
     'unknown key `los_weight` in model.decode_head.loss_decode: did you mean `loss_weight`?'),
    ({'model.decode_head.in_channels': 16},
     'model.decode_head.in_channels is 16, but model.backbone (FastSCNN) gives 3 feature maps with 8, 8, '
     '8 channels, of which it takes -1: set model.decode_head.in_channels=8'),
    ({'model.decode_head.in_index': 7},
     'model.decode_head.in_index takes map 7, but model.backbone (FastSCNN) gives 3 feature maps with 8, '
     '8, 8 channels: give in_index from 0 to 2'),
    ({'model.decode_head.type': 'FCNHed'},
     'FCNHed is not in the mmseg::model registry: did you mean FCNHead?'),
    ({'optim_wrapper.optimizer.lr': -1},
     'SGD cannot be built as the config says: Invalid learning rate: -1'),
    ({'optim_wrapper.optimizer.lr': 'abc'},
     "optim_wrapper.optimizer.lr must be a number, but is the string 'abc'"),
    ({'optim_wrapper.optimizer.momentumm': 0.9},
     'unknown key `momentumm` in optim_wrapper.optimizer: did you mean `momentum`?'),
    ({'optim_wrapper.type': 'OptimWraper'},
     'OptimWraper is not in the mmseg::optim_wrapper registry: did you mean OptimWrapper?'),
    ({'param_scheduler': [{'type': 'PolyLr'}]},
     'unknown type `PolyLr` in param_scheduler.0: did you mean `PolyLR`?'),
    ({'param_scheduler': [{'type': 'PolyLR', 'powr': 0.9}]},
     'unknown key `powr` in param_scheduler.0: did you mean `power`?'),
    ({'federated.aggregator': {'type': 'Medain'}},
     'unknown type `Medain` in federated.aggregator: did you mean `GeometricMedian`?'),
    ({'federated.aggregator': {'type': 'TrimmedMean', 'trim': 0.5}},
     'federated.aggregator.trim must be a number at least 0 and below 0.5, but is 0.5'),
    ({'federated.aggregator': {'type': 'MultiKrum', 'num_malicious': 1}},
     'MultiKrum with federated.aggregator.num_malicious=1 needs at least 2 * 1 + 3 = 5 updates in a '
     'round, but there are 3: raise federated.clients_per_round or lower '
     'federated.aggregator.num_malicious'),
    ({'federated.aggregator': {'type': 'NormClippedMean'}},
     'federated.aggregator needs `max_norm`, which is not given'),
    ({'federated.processors': {'type': 'NormClipping', 'max_norm': 1}},
     "federated.processors must be a list of dicts, but is {'max_norm': 1, 'type': 'NormClipping'}"),
    ({'federated.processors': [{'type': 'NormClipping', 'max_norm': 0}]},
     'federated.processors.NormClipping.max_norm must be a number above 0, but is 0'),
    ({'federated.processors': [{'type': 'GaussianMechanism', 'noise_multiplier': 1, 'max_norm': 1}]},
     'federated.processors: noise protects a client only where every update counts alike, but FedAvg '
     'weighs them by their images: set federated.algorithm.weighting=equal'),
    ({'federated.processors': [{'type': 'Int8Compression'}, {'type': 'NormClipping', 'max_norm': 1}]},
     'federated.processors: Int8Compression encodes the update, so it must come last, but '
     'NormClipping does'),
    ({'federated.processors': [{'type': 'DifferentialPrivacy', 'delta': 0.0001, 'max_norm': 1}]},
     'federated.processors.DifferentialPrivacy needs noise_multiplier, or target_epsilon to derive it from'),
    ({'federated.attacks': {'type': 'SignFlip'}},
     "federated.attacks must be a list of dicts, but is {'type': 'SignFlip'}"),
    ({'federated.attacks': [{'type': 'SignFlip'}]},
     'federated.attacks.SignFlip.share or federated.attacks.SignFlip.clients must say who is hostile: '
     'give one of the two'),
    ({'federated.attacks': [{'type': 'SignFlip', 'share': 0.01}]},
     'federated.attacks: SignFlip with share=0.01 makes none of the 8 clients hostile: raise it, or list '
     'clients'),
    ({'federated.attacks': [{'type': 'SignFlip', 'clients': [8]}]},
     'federated.attacks: SignFlip names the client 8, but the 8 clients are 0 to 7'),
    ({'federated.attacks': [{'type': 'ALIE', 'share': 0.5, 'z': -1}]},
     'federated.attacks.ALIE.z must be a number at least 0, but is -1'),
    ({'federated.backend': {'type': 'LocalBackend', 'client_time_limit': 0}},
     'federated.backend.client_time_limit must be a number above 0, but is 0'),
    ({'federated.sampler': {'type': 'UniformSampelr'}},
     'unknown type `UniformSampelr` in federated.sampler: did you mean `UniformSampler`?'),
    ({'federated.sampler': {'type': 'PoissonSampler', 'probability': 2}},
     'federated.sampler.probability must be a number above 0 and at most 1, but is 2'),
    ({'federated.min_clients': 4},
     'federated.min_clients=4 is more than the 3 clients of a round: lower it or raise '
     'federated.clients_per_round'),
    ({'federated.max_failed_rounds': 0},
     'federated.max_failed_rounds must be an integer of at least 1, but is 0'),
    ({'federated.partitioner': 'nowhere.json'},
     'there is no partition manifest nowhere.json'),
    ({'federated.partitioner': {'type': 'DirichletPartitioner', 'num_clients': 4, 'alpha': 0}},
     '`alpha` of DirichletPartitioner must be a number above 0, but is 0'),
    ({'train_dataloader.dataset.type': 'BaseSegDataet'},
     'BaseSegDataet is not in the mmseg::dataset registry: did you mean BaseSegDataset?'),
    ({'train_dataloader.dataset.pipeline': [{'type': 'LoadImageFromFil'}]},
     'unknown type `LoadImageFromFil` in train_dataloader.dataset.pipeline.0: did you mean '
     '`LoadImageFromFile`?'),
    ({'train_dataloader.dataset.pipeline': [{'type': 'LoadImageFromFile'}, {'type': 'LoadAnnotations'}]},
     'the train pipeline of BaseSegDataset has no PackSegInputs, before which labels are masked to their '
     'client'),
    ({'train_dataloader.num_workers': -1},
     'train_dataloader.num_workers must be an integer of at least 0, but is -1'),
    ({'val_evaluator.type': 'IoUMetrics'},
     'unknown type `IoUMetrics` in val_evaluator: did you mean `IoUMetric`?'),
    ({'val_evaluator.iou_metrics': ['mIoUU']},
     "val_evaluator.iou_metrics names 'mIoUU', which is not one of mIoU, mDice, mFscore"),
    ({'default_hooks.checkpoint.type': 'CheckpointHok'},
     'CheckpointHok is not in the mmseg::hook registry: did you mean CheckpointHook?'),
    ({'default_hooks.checkpoint.save_best': 'mIuO'},
     "default_hooks.checkpoint.save_best is 'mIuO', which no evaluation gives: the figures of "
     'val_evaluator are aAcc, mAcc, mIoU'),
    ({'custom_hooks': [{'type': 'EMAHok'}]},
     'EMAHok is not in the mmseg::hook registry: did you mean EMAHook?'),
    ({'load_from': 'nowhere.pth'},
     'there is no checkpoint nowhere.pth'),
    ({'randomness.seed': 'x'},
     "randomness.seed must be an integer from 0 to 4294967295, but is 'x'"),
    ({'train_cfg.val_begin': 'x'},
     "train_cfg.val_begin must be an integer of at least 0, but is 'x'"),
    ({'train_dataloader.dataset.metainfo': {'classes': ()}},
     'train_dataloader.dataset.metainfo.classes must be a list of names, but is ()'),
    ({'model.data_preprocessor.mean': [1.0]},
     'the images have 3 channels as the train pipeline loads them, but model.data_preprocessor.mean has 1 '
     "numbers: load them with LoadImageFromFile's color_type='color', or give as many numbers in mean and "
     'std, and as many in_channels in the backbone'),
    ({'model.type': 'EncodrDecoder'},
     'EncodrDecoder is not in the mmseg::model registry: did you mean EncoderDecoder?'),
]


def test_there_are_sixty_and_none_is_answered_twice():
    assert len(BAD_INPUTS) >= 60
    assert len({repr(changes) for changes, _ in BAD_INPUTS}) == len(BAD_INPUTS)


@pytest.mark.parametrize('changes, sentence', BAD_INPUTS)
def test_a_mistake_is_one_exact_sentence(tiny_data, tmp_path, changes, sentence, capsys):
    said = refuse_quickly(capsys, write_config(tiny_data, tmp_path, **changes))
    said = said.replace(', '.join(sorted(PARTITIONERS.module_dict)), 'PARTITIONERS')  # other tests register theirs
    assert said.replace(str(tiny_data), 'DATA').replace(str(tmp_path), 'WORK') == f'fed_train: {sentence}'
