"""A plain config becomes a federated one."""
import pytest
from mmengine.config import Config

from fedseg_mm import FedSegError
from fedseg_mm.config import federate_plain, find_config, load_config
from tests.conftest import ROOT, run_tool, tiny_config

FEDERATION = ROOT / 'configs' / '_base_' / 'federated' / 'fedseg_noniid1.py'


def federated(config: str, **changes) -> Config:
    cfg = Config.fromfile(find_config(f'mmseg::{config}'))
    cfg.merge_from_dict(changes)
    federate_plain(cfg, Config.fromfile(FEDERATION))
    return cfg


def test_iterations_become_rounds():
    """160,000 iterations, 1,500 rounds: one round for 106.7 iterations."""
    cfg = federated('bisenetv1/bisenetv1_r18-d32_4xb4-160k_cityscapes-1024x1024.py', custom_hooks=[
        dict(type='EMAHook', begin_iter=16000)])
    warm_up, decay = cfg.param_scheduler
    assert (warm_up.type, warm_up.begin, warm_up.end, warm_up.by_epoch) == ('LinearLR', 0, 9, True)
    assert (decay.type, decay.begin, decay.end, decay.by_epoch) == ('PolyLR', 9, 1500, True)
    checkpoint = cfg.default_hooks.checkpoint
    assert checkpoint.by_epoch and checkpoint.interval == 150 and checkpoint.filename_tmpl == 'round_{}.pth'
    assert cfg.train_cfg == dict(type='FederatedTrainLoop', max_rounds=1500, val_interval=20)
    assert cfg.custom_hooks[0].begin_iter == 150
    assert cfg.custom_imports.imports == ['fedseg_mm'] and 'sampler' not in cfg.train_dataloader
    assert cfg.federated.algorithm.type == 'FedSeg'


def test_cross_entropy_becomes_back_ce_and_the_rest_stays():
    cfg = federated('bisenetv1/bisenetv1_r18-d32_4xb4-160k_cityscapes-1024x1024.py')
    losses = [head.loss_decode for head in (cfg.model.decode_head, *cfg.model.auxiliary_head)]
    assert [(loss.type, loss.loss_weight) for loss in losses] == 3 * [('BackCELoss', 1.0)]
    cfg = federated('pidnet/pidnet-s_2xb6-120k_1024x1024-cityscapes.py')
    types = [loss.type for loss in cfg.model.decode_head.loss_decode]
    assert types == ['BackCELoss', 'BackCELoss', 'BoundaryLoss', 'BackCELoss']
    weights = [loss.loss_weight for loss in cfg.model.decode_head.loss_decode]
    assert weights == [0.4, 1.0, 20.0, 1.0]
    assert len(cfg.model.decode_head.loss_decode[0].class_weight) == 19
    cfg = federated('stdc/stdc1_4xb12-80k_cityscapes-512x1024.py')
    assert [loss.type for loss in cfg.model.auxiliary_head[2].loss_decode] == ['CrossEntropyLoss', 'DiceLoss']


def test_what_is_no_map_of_classes_keeps_its_loss():
    cfg = federated('encnet/encnet_r50-d8_4xb2-40k_cityscapes-512x1024.py')
    assert cfg.model.decode_head.loss_decode.type == 'BackCELoss'
    assert cfg.model.decode_head.loss_se_decode.loss_weight == 0  # classes of an image, of which a client knows few
    cfg = federated('point_rend/pointrend_r50_4xb2-80k_cityscapes-512x1024.py')
    assert [head.loss_decode.type for head in cfg.model.decode_head] == ['BackCELoss', 'CrossEntropyLoss']
    cfg = federated('unet/unet-s5-d16_fcn_4xb4-40k_drive-64x64.py', **{'model.decode_head.out_channels': 1})
    assert cfg.model.decode_head.loss_decode.type == 'CrossEntropyLoss'
    assert cfg.model.auxiliary_head.loss_decode.type == 'BackCELoss'
    assert cfg.train_dataloader.dataset.type == 'DRIVEDataset'  # no longer repeated


def test_epochs_become_rounds():
    plain = Config(dict(
        model=dict(decode_head=dict(type='FCNHead', num_classes=3)), custom_imports=dict(imports='json'),
        train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=100),
        param_scheduler=[dict(type='LinearLR', by_epoch=False, end=1000), dict(type='MultiStepLR', milestones=[60, 80]),
                         dict(type='CosineRestartLR', periods=[50, 50], by_epoch=True)]))
    federate_plain(plain, Config.fromfile(FEDERATION))
    steps, cosine = plain.param_scheduler  # the iterations of an epoch are not known
    assert steps.milestones == [900, 1200] and cosine.periods == [750, 750]
    assert plain.custom_imports.imports == ['fedseg_mm', 'json']


def test_schedules_follow_the_rounds_that_the_command_line_asks_for():
    name = 'mmseg::segformer/segformer_mit-b0_8xb1-160k_cityscapes-1024x1024.py'
    cfg = load_config(name, {'train_cfg.max_rounds': 320}, str(FEDERATION))
    assert cfg.train_cfg.max_rounds == 320 and cfg.default_hooks.checkpoint.interval == 32
    assert [(schedule.begin, schedule.end) for schedule in cfg.param_scheduler] == [(0, 3), (3, 320)]
    refused_later = load_config(name, {'train_cfg.max_rounds': 0}, str(FEDERATION))
    assert refused_later.param_scheduler[1].end == 1500


def test_a_warm_up_shorter_than_two_rounds_is_left_out():
    cfg = federated('segformer/segformer_mit-b0_8xb1-160k_cityscapes-1024x1024.py', **{
        'param_scheduler.0.end': 100, 'param_scheduler.1.begin': 100})
    assert [schedule.type for schedule in cfg.param_scheduler] == ['PolyLR']


@pytest.mark.parametrize('text, sentence', [
    ('a = 1', 'has no `federated`'),
    ('federated = dict()', 'has no `train_cfg`'),
    ('federated = dict()\ntrain_cfg = dict(max_rounds=0)', 'train_cfg.max_rounds must be an integer of at least 1'),
])
def test_what_is_no_federation_is_refused(tmp_path, text, sentence):
    (tmp_path / 'federation.py').write_text(text)
    with pytest.raises(FedSegError, match=sentence):
        federate_plain(Config(dict(model=dict())), Config.fromfile(tmp_path / 'federation.py'))


def test_a_plain_config_trains_and_evaluates_through_the_tools(tiny_data, tmp_path):
    cfg = tiny_config(tiny_data, tmp_path / 'run', **{'model.decode_head.loss_decode': dict(type='CrossEntropyLoss')})
    for key in ('federated', 'custom_imports', 'log_processor', 'default_hooks', 'randomness', 'work_dir'):
        cfg.pop(key)
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=300, val_interval=100)
    cfg.param_scheduler = [dict(type='PolyLR', eta_min=1e-4, power=0.9, begin=0, end=300, by_epoch=False)]
    cfg.default_hooks = dict(logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
                             checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=100))
    cfg.log_processor = dict(by_epoch=False)
    cfg.train_dataloader.sampler = dict(type='InfiniteSampler', shuffle=True)
    cfg.dump(tmp_path / 'plain.py')
    (tmp_path / 'federation.py').write_text(
        f"_base_ = '{FEDERATION}'\nfederated = dict(partitioner=dict(clients_per_class=2), clients_per_round=2)\n"
        "train_cfg = dict(max_rounds=3, val_interval=3)\n")
    arguments = 'plain.py', '--federated', 'federation.py'
    done = run_tool('fed_partition', *arguments, cwd=tmp_path)
    assert done.returncode == 0 and '8 clients, 24 of 24 images' in done.stdout, done.stderr
    done = run_tool('fed_train', *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    for said in ('300 iterations became 3 rounds', 'loss_decode: BackCELoss replaced CrossEntropyLoss',
                 'a checkpoint is written every round instead of every 100 iterations', 'Round(train) [3/3]',
                 'PolyLR (0 to 300) runs from round 0 to 3', 'per-client samplers replaced InfiniteSampler'):
        assert said in ' '.join(done.stdout.split()), said
    work_dir = tmp_path / 'work_dirs' / 'plain-federation'
    (tmp_path / 'plain_lite.py').write_text("_base_ = './plain.py'\ncustom_imports = dict(imports=['fedseg_mm'])\n")
    done = run_tool('test', 'plain_lite.py', work_dir / 'round_3.pth', cwd=tmp_path)
    assert done.returncode == 0 and 'mIoU' in done.stdout, done.stderr
