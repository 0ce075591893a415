"""What a config, its model and its images are told before training, through the tool's own entry point."""
import importlib.util
import logging
import os
import re

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS, OPTIMIZERS
from torch.optim import SGD
from torch.utils.data import DataLoader

from fedseg_mm import FedSegError
from fedseg_mm.cli.train import main
from fedseg_mm.config import check_config, find_config
from fedseg_mm.config.check_data import DATA_VARIABLES
from fedseg_mm.engine import FederatedTrainLoop
from tests.conftest import CLASSES, ROOT, tiny_config, write_config

METAINFO = 'train_dataloader.dataset.metainfo'
HEAD = 'model.decode_head'
BACK_CE = dict(type='BackCELoss')


def sentences(capsys, *arguments) -> list[str]:
    """What a training that must not begin says."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    assert isinstance(stop.value.code, str) and 'Round 1:' not in capsys.readouterr().out
    lines = stop.value.code.splitlines()
    assert all(line.startswith('fed_train: ') for line in lines)
    return lines


def classes(**metainfo) -> dict:
    """The same metainfo for all loaders."""
    return {f'{mode}_dataloader.dataset.metainfo': dict(_delete_=True, **metainfo) for mode in ('train', 'val', 'test')}


@DATASETS.register_module(force=True)
class Letters(BaseSegDataset):
    METAINFO = dict(classes=('a', 'b', 'c', 'd', 'e'), palette=[[i, i, i] for i in range(5)])


@OPTIMIZERS.register_module(force=True)
class AnyKeys(SGD):

    def __init__(self, params, **anything):
        super().__init__(params, lr=anything['rate'])


def head_loss(*losses) -> dict:
    return {f'{HEAD}.loss_decode': list(losses)}


def test_a_missing_public_data_set_is_one_sentence(tiny_data, tmp_path, monkeypatch, capsys):
    """It names the environment variable, and all keys that name the folder."""
    monkeypatch.chdir(tmp_path)
    config = write_config(tiny_data, tmp_path, **{
        f'{mode}_dataloader.dataset.data_root': 'data/cityscapes' for mode in ('train', 'val')})
    assert sentences(capsys, config) == [
        'fed_train: the data folder data/cityscapes does not exist: put or link the data set there, name its folder in '
        'the environment variable FEDSEG_CITYSCAPES, or set train_dataloader.dataset.data_root and '
        'val_dataloader.dataset.data_root']
    monkeypatch.setenv('FEDSEG_CAMVID', 'elsewhere')
    config = write_config(tiny_data, tmp_path, **{'val_dataloader.dataset.data_root': 'elsewhere'})
    assert 'environment variable FEDSEG_CAMVID, or set val_' in sentences(capsys, config)[0]


def test_the_environment_variables_are_those_of_the_configs():
    texts = [path.read_text() for path in (ROOT / 'configs' / '_base_' / 'datasets').glob('*.py')]
    found = dict(pair for text in texts for pair in re.findall(r'\{\{\$(\w+):([\w/]+)\}\}', text))
    assert found == {variable: folder for folder, variable in DATA_VARIABLES.items()}


def pipeline(*transforms) -> dict:
    return {'train_dataloader.dataset.pipeline': [
        dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), *transforms, dict(type='PackSegInputs')]}


@pytest.mark.parametrize('changes, sentence', [
    # classes
    (classes(), 'train_dataloader.dataset has no class names: set train_dataloader.dataset.metainfo='),
    (classes(CLASSES=CLASSES), 'train_dataloader.dataset.metainfo has the key `CLASSES`, which .* write `classes`'),
    (classes(classes='water'), "metainfo.classes is the string 'water', of which every letter would be a class"),
    (classes(classes=[1, 2, 3, 4]), r'metainfo.classes must be a list of names, but is \[1, 2, 3, 4\]'),
    (classes(classes=('a', 'b', 'b', 'c')), 'metainfo.classes names b twice'),
    (classes(classes=CLASSES, palette=[[0, 0, 0]] * 3), 'metainfo.palette has 3 colours for 4 classes'),
    ({'train_dataloader.dataset.type': 'Letters'}, 'metainfo.classes names sky, road, car, tree, but Letters has no '
     'such class: its classes are a, b, c, d, e'),
    ({'val_dataloader.dataset.metainfo.classes': CLASSES[:3]},
     'val_dataloader.dataset has different classes from train_dataloader.dataset: it lacks tree'),
    ({'test_dataloader.dataset.metainfo.classes': (*CLASSES[:3], 'bush')},
     'test_dataloader.dataset has different classes from .*: it lacks tree and it adds bush'),
    ({'val_dataloader.dataset.metainfo.classes': CLASSES[::-1]}, 'it has them in another order'),
    ({METAINFO: 5}, r'train_dataloader.dataset.metainfo must be a dict .*, but is 5'),
    # void
    ({'model.data_preprocessor.seg_pad_val': 0}, 'data_preprocessor.seg_pad_val is 0, which .* set it to 255'),
    ({f'{HEAD}.ignore_index': 0}, 'model.decode_head.ignore_index is 0, but void pixels have the label 255'),
    ({'val_evaluator.ignore_index': 0}, 'val_evaluator.ignore_index is 0, but void pixels have the label 255'),
    (pipeline(dict(type='RandomRotate', prob=1., degree=10, seg_pad_val=0)),
     'RandomRotate of the train pipeline pads labels with 0'),
    (pipeline(dict(type='Pad', size=(64, 48), pad_val=dict(img=0, seg=0))), 'Pad of the train pipeline pads labels'),
    (head_loss(BACK_CE, dict(type='TverskyLoss', ignore_index=0)), 'ignore_index of TverskyLoss is 0'),
    # heads, losses and sizes
    ({f'{HEAD}.num_classes': 2, f'{HEAD}.out_channels': 1, **classes(classes=CLASSES[:2])},
     'model.decode_head.loss_decode: BackCELoss needs a score for each class'),
    ({f'{HEAD}.out_channels': 1, **head_loss(dict(type='CrossEntropyLoss', use_sigmoid=True))},
     'out_channels=1 only tells two classes apart, but there are 4'),
    ({f'{HEAD}.out_channels': 3}, 'model.decode_head.out_channels=3 must be the number of classes, 4'),
    ({f'{HEAD}.num_classes': 1, **classes(classes=('crack', ))},
     'the data set has one class, crack, and nothing to tell it apart from'),
    (head_loss(dict(type='BackCELoss', class_weight=[1., 2.])), r'decode_head.loss_decode.0.class_weight has 2 numbers '
     'for 4 classes'),
    (head_loss(dict(type='BackCELoss', class_weight='none.npy')), 'class_weight names the file none.npy, which does'),
    (head_loss(BACK_CE, dict(type='FocalLoss')), 'model.decode_head.loss_decode.1: FocalLoss fails on scores and'),
    (head_loss(BACK_CE, dict(type='SiLogLoss')), 'model.decode_head.loss_decode.1: SiLogLoss fails on scores and'),
    (head_loss(BACK_CE, dict(type='OhemCrossEntropy')), 'OhemCrossEntropy fails on scores and labels'),
    (head_loss(dict(type='CrossEntropyLoss', class_weight=[1., 1., 1., 2.])),
     'CrossEntropyLoss fails where pixels are void or unannotated .* remove its class_weight'),
    ({'model.data_preprocessor.size': (32, 64)},
     r'data_preprocessor.size is \(32, 64\), but images are cropped to \(48, 64\)'),
    ({'model.data_preprocessor.size': 48}, r'data_preprocessor.size must be \(height, width\), but is 48'),
    (head_loss(BACK_CE, dict(type='LovaszLoss')), "LovaszLoss cannot be built as .*: reduction should be 'none'"),
    (pipeline(dict(type='RandomFlip', prb=0.5)), 'unknown key `prb` in train_dataloader.dataset.pipeline.2: .*`prob`'),
    (pipeline(dict(type='RandomFlp')), 'unknown type `RandomFlp` in .*pipeline.2: did you mean `RandomFlip`'),
    ({'train_dataloader.dataset.pipeline': [dict(type='LoadImageFromFile'), dict(type='PackSegInputs')]},
     'the pipeline loads no labels: add LoadAnnotations'),
    ({'val_dataloader.dataset.pipeline': [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]},
     "val_dataloader.dataset.pipeline has no dict.type='PackSegInputs'., which must be its last transform"),
    ({'optim_wrapper.optimizer.lr': '0.1'}, "optim_wrapper.optimizer.lr must be a number, but is the string '0.1'"),
    (head_loss(dict(type='BackCELoss', loss_weight='1')), "loss_decode.0.loss_weight must be a number, but"),
    (head_loss(dict(type='BackCELoss', use_sigmoid=True)), 'unknown key `use_sigmoid` in .*loss_decode.0: known keys'),
    ({'train_dataloader.num_workers': -1}, 'train_dataloader.num_workers must be an integer of at least 0, but is -1'),
    ({'val_dataloader.batch_size': 0}, 'val_dataloader.batch_size must be an integer of at least 1, but is 0'),
    ({'model.backbone.norm_cfg': dict(type='BatchNorm')}, 'unknown type `BatchNorm` in model.backbone.norm_cfg'),
    ({'model.backbone.type': 'FastSCN'}, 'FastSCN is not in the mmseg::model registry: did you mean FastSCNN'),
    ({'model': dict(_delete_=True, backbone=dict(type='FastSCNN'))}, 'a part of the config has no `type`: '),
    ({'model.data_preprocessor': None}, 'the model has no data_preprocessor, so images are neither normalised'),
    ({'val_evaluator.iou_metrics': ['miou']},
     "val_evaluator.iou_metrics names 'miou', which is not one of mIoU, mDice"),
    ({'default_hooks.checkpoint.save_best': 'mIou'}, "save_best is 'mIou', which no evaluation gives: .* aAcc, mAcc, "),
    ({'optim_wrapper.clip_grad': dict(max_norm=-1)}, 'clip_grad.max_norm must be a number above 0, but is -1'),
    ({'env_cfg': 'fast'}, "env_cfg must be a dict, but is 'fast'"),
    ({'custom_hooks': dict(type='EMAHook')}, 'custom_hooks must be a list of dicts, but is '),
    (pipeline(dict(type='RandomResize', scale=(64, 48), ratio_range=(2., 0.5))),
     'the train pipeline fails on the image .*: AssertionError, in `assert min_ratio <= max_ratio`'),
    (pipeline(dict(type='RandomCrop', crop_size=(0, 64))), 'RandomCrop cannot be .*: AssertionError, in `assert'),
    ({'custom_imports.imports': ['fedseg_mm', 'nobodys_package']},
     "the imports of the config .* fail: No module named 'nobodys_package': install it or, for a file of your own"),
    ({'val_dataloader': dict(_delete_=True, batch_size=1)}, 'val_dataloader needs `dataset`, which is not given'),
    ({f'{HEAD}.chanels': 8}, "DepthwiseSeparableFCNHead cannot be built as the config says: .*'chanels'"),
    # sections
    ({'val_cfg': None}, 'val_cfg is None or missing, but val_dataloader and val_evaluator are given: give all three'),
    ({'val_dataloader': None, 'val_evaluator': None}, 'val_dataloader and val_evaluator is None or missing, but'),
    ({'test_evaluator': None}, 'test_evaluator is None or missing, but test_cfg and test_dataloader are given'),
    ({'optim_wrapper': None}, 'optim_wrapper must be a dict, but is None'),
    ({'optim_wrapper.optimizer.typ': 'Adam'}, 'unknown key `typ` in optim_wrapper.optimizer'),
    ({'optim_wrapper.optimizer.type': 'Sgd'}, 'unknown type `Sgd` in optim_wrapper.optimizer: did you mean `SGD`'),
    ({'optim_wrapper.optimizer.weight_deacy': 1}, 'did you mean `weight_decay`'),
    ({'param_scheduler': [dict(type='PolyLR', powr=1)]}, 'unknown key `powr` in .*scheduler.0: did you mean `power`'),
    ({'param_scheduler': [dict(type='PolyLr')]}, 'unknown type `PolyLr` in .*scheduler.0: did you mean `PolyLR`'),
    *(({'visualizer.vis_backends': [dict(type=backend)]},
       f'needs the package {package}, and .* `pip install {package}`')
      for backend, package in (('WandbVisBackend', 'wandb'), ('MLflowVisBackend', 'mlflow'),
                               ('NeptuneVisBackend', 'neptune')) if importlib.util.find_spec(package) is None),
])
def test_a_fault_is_a_sentence(tiny_data, tmp_path, changes, sentence, capsys):
    lines = sentences(capsys, write_config(tiny_data, tmp_path, **changes))
    assert any(re.search(sentence, line) for line in lines), lines


def test_randomness_under_which_a_run_fails(tiny_data, tmp_path, capsys, monkeypatch):
    config = write_config(tiny_data, tmp_path, **{'randomness.diff_rank_seed': True})
    assert 'diff_rank_seed=True would have every process draw a cohort of its own' in sentences(capsys, config)[0]
    cfg = tiny_config(tiny_data, tmp_path, **{'randomness.deterministic': True})
    check_config(cfg)  # as on a CPU it can
    monkeypatch.setattr('torch.cuda.is_available', lambda: True)
    with pytest.raises(FedSegError, match='randomness.deterministic=True fails on a GPU, where IoUMetric'):
        check_config(cfg)


def test_all_faults_are_told_at_once(tiny_data, tmp_path, capsys):
    lines = sentences(capsys, write_config(tiny_data, tmp_path, **{
        'train_cfg.max_round': 3, 'federated.client_per_round': 3, 'federated.local_epoch': 1,
        'val_dataloader.dataset.data_root': 'nowhere', 'optim_wrapper.optimizer.typ': 'Adam', 'randomness.seed': -1}))
    for wrong in ('`max_round`', '`client_per_round`', '`local_epoch`', 'nowhere', '`typ`', 'randomness.seed'):
        assert sum(wrong in line for line in lines) == 1, wrong
    lines = sentences(capsys, write_config(tiny_data, tmp_path, **{
        'federated.algorithm': dict(type='FedProx', mue=1), 'federated.partitioner.sed': 1,
        'federated.sampler': dict(type='Uniform')}))
    assert len(lines) == 3
    lines = sentences(capsys, write_config(tiny_data, tmp_path, **{
        'model.data_preprocessor.seg_pad_val': 0, f'{HEAD}.ignore_index': 0, f'{HEAD}.num_classes': 3}))
    assert len(lines) == 3


def test_what_no_rule_is_about_is_accepted(tiny_data, tmp_path):
    """Class names in a file, an optimizer that takes any key, a schedule as a dict, an empty palette."""
    (tmp_path / 'names.txt').write_text('\n'.join(CLASSES) + '\n')
    check_config(tiny_config(tiny_data, tmp_path, **{
        **classes(classes=str(tmp_path / 'names.txt'), palette=[]),
        'optim_wrapper.optimizer': dict(_delete_=True, type='AnyKeys', rate=1.),
        'param_scheduler': dict(_delete_=True, type='PolyLR', end=3, convert_to_iter_based=False)}))
    part = dict(type='Letters', metainfo=dict(classes=['b', 'a']))
    check_config(tiny_config(tiny_data, tmp_path, train_dataloader=dict(dataset=dict(_delete_=True, **part)),
                             val_dataloader=dict(dataset=dict(_delete_=True, **part)),
                             test_dataloader=dict(dataset=dict(_delete_=True, **part))))


@pytest.mark.parametrize('config', [
    'mmseg::segformer/segformer_mit-b0_8xb1-160k_cityscapes-1024x1024.py', 'mmseg::unet/unet-s5-d16_fcn_4xb4-40k_drive-'
    '64x64.py', 'mmseg::pidnet/pidnet-s_2xb6-120k_1024x1024-cityscapes.py', 'mmseg::stdc/stdc1_4xb12-80k_cityscapes-'
    '512x1024.py', 'mmseg::swin/swin-tiny-patch4-window7_upernet_1xb8-20k_levir-256x256.py'])
def test_configs_of_mmsegmentation_have_no_fault_but_their_folders(config):
    with pytest.raises(FedSegError) as error:
        check_config(Config.fromfile(find_config(config)))
    assert all('the data folder' in line for line in str(error.value).splitlines()), str(error.value)


def test_a_test_set_without_classes_is_not_in_the_way_of_a_training(tiny_data, tmp_path):
    check_config(tiny_config(tiny_data, tmp_path, **{'test_dataloader.dataset.metainfo': dict(_delete_=True)}))


def test_joined_data_sets_that_differ(tiny_data, tmp_path, capsys):
    cfg = tiny_config(tiny_data, tmp_path)
    part = cfg.train_dataloader.dataset.to_dict()
    other = {**part, 'metainfo': dict(classes=(*CLASSES, 'bush'))}
    cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[part, other])
    cfg.dump(tmp_path / 'joined.py')
    line, = sentences(capsys, tmp_path / 'joined.py')
    assert 'train_dataloader.dataset.datasets.1 has different classes from train_dataloader.dataset.datasets.0' in line


# --- said, and trained ------------------------------------------------------
@pytest.fixture
def said(monkeypatch):
    """Warnings of a run, which is stopped where its rounds would begin."""
    def run(cfg: Config, rounds: int = 0) -> str:
        texts: list[str] = []

        class Listener(logging.Handler):
            def emit(self, record):
                texts.append(record.getMessage())

        if not rounds:
            monkeypatch.setattr(FederatedTrainLoop, 'run_epoch', lambda loop: setattr(loop, '_epoch', 10**9))
        cfg.val_dataloader = cfg.val_evaluator = cfg.val_cfg = None
        cfg.experiment_name = f'{cfg.work_dir}-{len(texts)}'.replace('/', '_')
        cfg.train_cfg.federated = cfg.federated
        runner = Runner.from_cfg(cfg)
        runner.logger.addHandler(Listener())
        runner.train()
        return '\n'.join(texts)

    return run


@pytest.mark.parametrize('algorithm, norm, rate, sentence', [
    (dict(type='FedBN'), 'GN', 0.05, 'FedBN treats batch normalisation specially, but the model has none'),
    (dict(type='SiloBN'), 'GN', 0.05, 'SiloBN treats batch normalisation'),
    (dict(type='FedAvg', batch_norm='recalibrate'), 'GN', 0.05, 'FedAvg treats batch normalisation'),
    (dict(type='FedAvg'), 'GN', 0.05, None),
    (dict(type='FedBN'), 'BN', 0.05, None),
    (dict(type='FedProx', mu=20), 'BN', 0.2, 'federated.algorithm.mu=20 is too strong for a learning rate of 0.2 with '
     'momentum 0.9: their product 4 is above 3.8, .* use at most 19,'),
    (dict(type='FedProx', mu=18), 'BN', 0.2, None),
    (dict(type='FedDyn', alpha=50), 'BN', 0.2, 'federated.algorithm.alpha=50 is too strong'),
])
def test_methods_that_do_not_fit_are_warned_of(tiny_data, tmp_path, said, algorithm, norm, rate, sentence):
    norm_cfg = dict(type='BN') if norm == 'BN' else dict(type='GN', num_groups=2)
    text = said(tiny_config(tiny_data, tmp_path, **{
        'federated.algorithm': algorithm, 'optim_wrapper.optimizer.lr': rate, 'model.backbone.norm_cfg': dict(
            _delete_=True, **norm_cfg), f'{HEAD}.norm_cfg': dict(_delete_=True, **norm_cfg)}))
    assert re.search(sentence, text) if sentence else 'too strong' not in text and 'treats batch' not in text


def test_no_such_warning_for_an_adaptive_optimizer(tiny_data, tmp_path, said):
    text = said(tiny_config(tiny_data, tmp_path, **{
        'federated.algorithm': dict(type='FedProx', mu=1000),
        'optim_wrapper.optimizer': dict(_delete_=True, type='Adam', lr=0.1)}))
    assert 'too strong' not in text


@pytest.mark.parametrize('changes, sentences', [
    ({'param_scheduler': [dict(type='MultiStepLR', milestones=[4, 60], by_epoch=True)], 'train_cfg.max_rounds': 6},
     ['param_scheduler.0.milestones=[60] is beyond max_rounds=6']),
    ({'param_scheduler': [dict(type='PolyLR', begin=6, end=9)], 'train_cfg.max_rounds': 6},
     ['param_scheduler.0.begin=6 is beyond', 'param_scheduler.0.end=9 is beyond']),
    ({'param_scheduler': [dict(type='CosineAnnealingLR', T_max=100)]}, ['param_scheduler.0.T_max=100 is beyond']),
    ({'param_scheduler': [dict(type='StepLR', step_size=30)]}, ['param_scheduler.0.step_size=30 is beyond']),
    ({'param_scheduler': [dict(type='MultiStepLR', milestones=[1, 3])]}, []),
])
def test_times_beyond_the_run(tiny_data, tmp_path, monkeypatch, changes, sentences):
    import fedseg_mm.config.check as check
    texts: list[str] = []
    monkeypatch.setattr(check, 'print_log', lambda text, *args, **kwargs: texts.append(text))
    check.warn_of_iterations(tiny_config(tiny_data, tmp_path, **changes))
    assert len(texts) == len(sentences) and all(part in text for part, text in zip(sentences, texts))


@pytest.mark.parametrize('workers, sentences', [
    ((500, 500), ['train_dataloader.num_workers=500 is more than the ']),
    ((0, 500), ['val_dataloader.num_workers=500']), ((0, 1), [])])
def test_more_workers_than_cores_are_warned_of_once(tiny_data, tmp_path, monkeypatch, recwarn, workers, sentences):
    import fedseg_mm.config.check as check
    texts: list[str] = []
    monkeypatch.setattr(check, 'print_log', lambda text, *args, **kwargs: texts.append(text))
    check.warn_of_workers(tiny_config(tiny_data, tmp_path, **{
        f'{mode}_dataloader.num_workers': number for mode, number in zip(('train', 'val'), workers)}),
        ('train_dataloader', 'val_dataloader'))
    assert len(texts) == len(sentences) and all(part in text for part, text in zip(sentences, texts))
    DataLoader([1], num_workers=500)
    assert not recwarn.list  # torch's paragraph


@pytest.mark.parametrize('loss, sentence', [
    (dict(type='HuasdorffDisstanceLoss'), 'model.decode_head.loss_decode.1: HuasdorffDisstanceLoss also learns from'),
    (dict(type='DiceLoss'), None), (dict(type='TverskyLoss'), None),
    (dict(type='LovaszLoss', reduction='none'), None), (dict(type='CrossEntropyLoss'), None)])
def test_losses_that_learn_what_nobody_knows(tiny_data, tmp_path, said, loss, sentence):
    text = said(tiny_config(tiny_data, tmp_path, **head_loss(BACK_CE, loss)))
    assert sentence in text if sentence else 'also learns' not in text


def test_where_all_is_annotated_no_loss_is_warned_of(tiny_data, tmp_path, said):
    text = said(tiny_config(tiny_data, tmp_path, **head_loss(BACK_CE, dict(type='HuasdorffDisstanceLoss')), **{
        'federated.partitioner': dict(_delete_=True, type='IIDPartitioner', num_clients=4)}))
    assert 'also learns' not in text


def test_no_finite_update_under_fedprox_names_mu(tiny_data, tmp_path, said):
    cfg = tiny_config(tiny_data, tmp_path, **{'federated.algorithm': dict(type='FedProx', mu=1e12)})
    with pytest.raises(FedSegError, match=r'sent a finite update; lower federated.algorithm.mu=1e\+12 or'):
        said(cfg, rounds=3)


# --- images -----------------------------------------------------------------
def test_ten_bad_masks_are_named(own_data, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv('FEDSEG_CACHE', str(tmp_path / 'cache'))
    for i in (3, 7, 11):
        cv2.imwrite(str(own_data / 'ann_dir' / 'train' / f'{i:03d}.png'), np.full((48, 64), 77, np.uint8))
    config = write_config(own_data, tmp_path)
    lines = sentences(capsys, config)
    assert [re.search(r'(\d+)\.png holds the value 77', line)[1] for line in lines] == ['003', '007', '011']
    for i in range(24):
        cv2.imwrite(str(own_data / 'ann_dir' / 'train' / f'{i:03d}.png'), np.full((48, 64), 77, np.uint8))
    assert len(sentences(capsys, config)) == 10


@pytest.mark.parametrize('values, changes, sentence', [
    ((0, 255), {}, 'show only background and void, and no pixel of crack: 255 is void here .* so write 1 for crack '
     'into the masks instead of 255'),
    ((0, 1), {'train_dataloader.dataset.reduce_zero_label': True},
     'reduce_zero_label=True turns the value 0 into void'),
])
def test_a_class_that_is_written_as_void(own_data, tmp_path, capsys, values, changes, sentence):
    for path in (own_data / 'ann_dir').rglob('*.png'):
        label = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), np.where(label == 0, *values[::-1]).astype(np.uint8))
    lines = sentences(capsys, write_config(own_data, tmp_path, **{
        f'{HEAD}.num_classes': 2, **classes(classes=('background', 'crack')), **changes}))
    assert len(lines) == 1 and re.search(sentence, lines[0]), lines


def test_other_channels(own_data, tmp_path, capsys):
    unchanged = {f'{mode}_dataloader.dataset.pipeline.0.color_type': 'unchanged' for mode in ('train', 'val')}
    for name in ('002', '013'):
        path = str(own_data / 'img_dir' / 'train' / f'{name}.png')
        cv2.imwrite(path, cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2BGRA))
    lines = sentences(capsys, write_config(own_data, tmp_path, **unchanged))
    assert len(lines) == 2 and '002.png has 4 channels, but most of the images have 3' in lines[0]
    for path in (own_data / 'img_dir').rglob('*.png'):
        cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
    line, = sentences(capsys, write_config(own_data, tmp_path, **unchanged))
    assert 'the images have 1 channels as the train pipeline loads them, but model.data_preprocessor.mean has 3' in line


def test_a_file_name_that_is_not_utf8(own_data, tmp_path, capsys):
    for kind in ('img_dir', 'ann_dir'):
        folder = bytes(own_data / kind / 'train')

        os.rename(folder + b'/004.png', folder + b'/caf\xe9.png')
    lines = sentences(capsys, write_config(own_data, tmp_path))
    assert len(lines) == 2 and r'train/caf\udce9.png is not UTF-8' in lines[0]


