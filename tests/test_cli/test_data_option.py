"""Any config on other data: --data FILE."""
import pytest
from mmengine.config import Config

from fedseg_mm import FedSegError
from fedseg_mm.cli import arguments, partition, test
from fedseg_mm.config import find_config, load_config, replace_data
from tests.conftest import CLASSES, ROOT, make_images, run_tool, tiny_config

DATA = ROOT / 'configs' / '_base_' / 'datasets'
FEDERATION = ROOT / 'configs' / '_base_' / 'federated' / 'fedseg_noniid1.py'


@pytest.mark.parametrize('config', [
    'segformer/segformer_mit-b0_8xb1-160k_cityscapes-1024x1024.py', 'pidnet/pidnet-s_2xb6-120k_1024x1024-cityscapes.py',
    'ocrnet/ocrnet_hr18_4xb2-40k_cityscapes-512x1024.py', 'stdc/stdc1_4xb12-80k_cityscapes-512x1024.py'])
def test_all_heads_follow_the_data(config):
    """Cascades, auxiliary heads and class weights of Cityscapes' 19 classes; STDC's head of edges has one."""
    cfg = load_config(f'mmseg::{config}', data=str(DATA / 'camvid_512x512.py'))
    heads = cfg.model.decode_head if isinstance(cfg.model.decode_head, list) else [cfg.model.decode_head]
    heads = heads + list(cfg.model.get('auxiliary_head') or [])
    assert {head.num_classes for head in heads if head.type != 'STDCHead'} == {11}
    assert all(head.num_classes == 2 for head in heads if head.type == 'STDCHead') or 'stdc' not in config
    losses = [loss for head in heads for loss in (
        head.get('loss_decode', []) if isinstance(head.get('loss_decode', []), list) else [head.loss_decode])]
    assert not any('class_weight' in loss for loss in losses)
    assert tuple(cfg.model.data_preprocessor.size) == (512, 512)
    assert cfg.train_dataloader.dataset.type == 'ConcatDataset'
    for mode in ('val', 'test'):
        assert cfg[f'{mode}_dataloader'].dataset.type == 'CamVidDataset'
        assert cfg[f'{mode}_evaluator'].type == 'IoUMetric'


def test_beside_federated():
    name = 'mmseg::segformer/segformer_mit-b0_8xb1-160k_cityscapes-1024x1024.py'
    cfg = load_config(name, federated=str(FEDERATION), data=str(DATA / 'voc_480x480.py'))
    assert cfg.train_dataloader.dataset.type == 'PascalVOCDataset' and cfg.model.decode_head.num_classes == 20
    assert cfg.model.decode_head.loss_decode.type == 'BackCELoss' and cfg.train_cfg.type == 'FederatedTrainLoop'
    assert cfg.work_dir.endswith('1024x1024-voc_480x480-fedseg_noniid1')


def test_what_the_file_leaves_out():
    """No test set: that of the evaluation. No evaluation: none."""
    data = Config(dict(train_dataloader=dict(dataset=dict(type='BaseSegDataset', metainfo=dict(classes=['a', 'b'])))))
    cfg = Config.fromfile(find_config('mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py'))
    replace_data(cfg, data)
    assert all(cfg[f'{mode}_{part}'] is None for mode in ('val', 'test') for part in ('dataloader', 'evaluator', 'cfg'))
    data.val_dataloader = dict(dataset=dict(type='BaseSegDataset', metainfo=dict(classes=['a', 'b'])))
    replace_data(cfg, data)
    assert cfg.test_dataloader == cfg.val_dataloader and cfg.test_cfg.type == 'TestLoop'
    assert cfg.val_evaluator == dict(type='IoUMetric', iou_metrics=['mIoU']) and cfg.val_cfg.type == 'ValLoop'


@pytest.mark.parametrize('data, sentence', [
    (dict(), 'has no `train_dataloader` with a `dataset`'),
    (dict(train_dataloader=dict(dataset=dict(type='BaseSegDataset'))),
     'does not say what its classes are: set train_dataloader.dataset.metainfo='),
    (dict(train_dataloader=dict(dataset=dict(type='StreetScenes'))), 'does not say what its classes are'),
])
def test_what_is_no_data(data, sentence):
    with pytest.raises(FedSegError, match=sentence):
        replace_data(Config(dict(model=dict())), Config(data))


def test_it_trains_and_evaluates_through_the_tools(tmp_path, capsys):
    """A config of four classes on data of three, and every tool that reads both."""
    make_images(tmp_path / 'data', 'train', 12, classes=3)
    make_images(tmp_path / 'data', 'test', 2, classes=3, seed=1)
    small = tiny_config(tmp_path / 'data', tmp_path, **{
        f'{mode}_dataloader.dataset.metainfo.classes': CLASSES[:3] for mode in ('train', 'val', 'test')})
    Config({key: small[key] for key in ('train_dataloader', 'val_dataloader', 'val_evaluator')}).dump(
        tmp_path / 'data.py')
    cfg = tiny_config(tmp_path / 'nowhere', tmp_path / 'run', **{
        'train_cfg.max_rounds': 1, 'federated.partitioner.num_clients': 3})
    cfg.dump(tmp_path / 'config.py')
    words = [str(tmp_path / 'config.py'), '--data', str(tmp_path / 'data.py')]
    partition.main(words)
    assert '3 clients, 12 of 12 images' in capsys.readouterr().out
    done = run_tool('fed_train', *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'model.decode_head.num_classes is 3 instead of 4' in ' '.join((done.stdout + done.stderr).split())
    test.main([words[0], str(tmp_path / 'run' / 'round_1.pth'), *words[1:]])
    assert 'mIoU' in capsys.readouterr().out


@pytest.mark.parametrize('parse', [arguments.train, arguments.test, arguments.partition])
def test_help_says_so(parse, capsys):
    with pytest.raises(SystemExit):
        parse(['--help'])
    text = ' '.join(capsys.readouterr().out.split())
    assert '--data FILE' in text and "the heads' num_classes follow the data" in text
