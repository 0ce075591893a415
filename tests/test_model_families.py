"""Plain MMSegmentation configs of every family, federated unchanged: one round of FedSeg, and an evaluation.

`python -m tests.test_model_families > docs/models.md` writes the list.
"""
import json

import pytest
from mmengine.config import Config
from mmengine.runner import Runner

from fedseg_mm import FedSegError
from fedseg_mm.config import federate, federate_plain, find_config
from fedseg_mm.models import BackCELoss
from tests.conftest import ROOT, tiny_config

#: Family, config, and changes that make it small enough for a test.
VIT = {'model.backbone.num_layers': 4, 'model.backbone.out_indices': (0, 1, 2, 3), 'model.backbone.img_size': (64, 64),
       'model.test_cfg': dict(mode='whole')}
FAMILIES = {
    'ANN': ('ann/ann_r50-d8_4xb2-40k_cityscapes-512x1024.py', {}),
    'APCNet': ('apcnet/apcnet_r50-d8_4xb2-40k_cityscapes-512x1024.py', {}),
    'BEiT': ('beit/beit-base_upernet_8xb2-160k_ade20k-640x640.py', {
        'model.backbone.num_layers': 4, 'model.backbone.out_indices': (0, 1, 2, 3),
        'model.backbone.img_size': (64, 64), 'model.test_cfg': dict(mode='whole')}),
    'BiSeNetV1': ('bisenetv1/bisenetv1_r18-d32_4xb4-160k_cityscapes-1024x1024.py', {}),
    'BiSeNetV2': ('bisenetv2/bisenetv2_fcn_4xb4-160k_cityscapes-1024x1024.py', {}),
    'CCNet': ('ccnet/ccnet_r50-d8_4xb2-40k_cityscapes-512x1024.py', {}),
    'CGNet': ('cgnet/cgnet_fcn_4xb8-60k_cityscapes-512x1024.py', {}),
    'DANet': ('danet/danet_r50-d8_4xb2-40k_cityscapes-512x1024.py', {}),
    'DDRNet': ('ddrnet/ddrnet_23-slim_in1k-pre_2xb6-120k_cityscapes-1024x1024.py', {}),
    'DeepLabV3': ('deeplabv3/deeplabv3_r50-d8_4xb2-40k_cityscapes-512x1024.py', {}),
    'DeepLabV3+': ('deeplabv3plus/deeplabv3plus_r50-d8_4xb2-40k_cityscapes-512x1024.py', {}),
    'DMNet': ('dmnet/dmnet_r50-d8_4xb2-40k_cityscapes-512x1024.py', {}),
    'DNLNet': ('dnlnet/dnl_r50-d8_4xb2-40k_cityscapes-512x1024.py', {}),
    'DPT': ('dpt/dpt_vit-b16_8xb2-160k_ade20k-512x512.py', VIT),
    'EMANet': ('emanet/emanet_r50-d8_4xb2-80k_cityscapes-512x1024.py', {}),
    'EncNet': ('encnet/encnet_r50-d8_4xb2-40k_cityscapes-512x1024.py', {}),
    'ERFNet': ('erfnet/erfnet_fcn_4xb4-160k_cityscapes-512x1024.py', {}),
    'FastFCN': ('fastfcn/fastfcn_r50-d32_jpu_psp_4xb2-80k_cityscapes-512x1024.py', {}),
    'Fast-SCNN': ('fastscnn/fast_scnn_8xb4-160k_cityscapes-512x1024.py', {}),
    'FCN': ('fcn/fcn_r18-d8_4xb2-80k_cityscapes-512x1024.py', {}),
    'GCNet': ('gcnet/gcnet_r50-d8_4xb2-40k_cityscapes-512x1024.py', {}),
    'HRNet': ('hrnet/fcn_hr18s_4xb2-40k_cityscapes-512x1024.py', {}),
    'ICNet': ('icnet/icnet_r18-d8_4xb2-80k_cityscapes-832x832.py', {}),
    'ISANet': ('isanet/isanet_r50-d8_4xb2-40k_cityscapes-512x1024.py', {}),
    'LR-ASPP': ('mobilenet_v3/mobilenet-v3-d8-s_lraspp_4xb4-320k_cityscapes-512x1024.py', {'size': 400}),
    'MobileNetV2': ('mobilenet_v2/mobilenet-v2-d8_fcn_4xb2-80k_cityscapes-512x1024.py', {}),
    'NonLocal Net': ('nonlocal_net/nonlocal_r50-d8_4xb2-40k_cityscapes-512x1024.py', {}),
    'OCRNet': ('ocrnet/ocrnet_hr18s_4xb2-40k_cityscapes-512x1024.py', {}),
    'PIDNet': ('pidnet/pidnet-s_2xb6-120k_1024x1024-cityscapes.py', {}),
    'PSPNet': ('pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py', {}),
    'ResNeSt': ('resnest/resnest_s101-d8_fcn_4xb2-80k_cityscapes-512x1024.py', {}),
    'SegFormer': ('segformer/segformer_mit-b0_8xb1-160k_cityscapes-1024x1024.py', {}),
    'Segmenter with a linear head': ('segmenter/segmenter_vit-s_fcn_8xb1-160k_ade20k-512x512.py', {
        'model.backbone.num_layers': 2, 'model.backbone.img_size': (64, 64), 'model.test_cfg': dict(mode='whole')}),
    'SegNeXt': ('segnext/segnext_mscan-t_1xb16-adamw-160k_ade20k-512x512.py', {}),
    'Semantic FPN': ('sem_fpn/fpn_r50_4xb2-80k_cityscapes-512x1024.py', {}),
    'SETR': ('setr/setr_vit-l_pup_8xb1-80k_cityscapes-768x768.py', {
        **VIT, 'model.backbone.embed_dims': 64, 'model.decode_head.in_channels': 64,
        **{f'model.auxiliary_head.{i}.in_channels': 64 for i in range(3)}}),
    'STDC': ('stdc/stdc1_4xb12-80k_cityscapes-512x1024.py', {}),
    'Swin': ('swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py', {}),
    'Twins': ('twins/twins_pcpvt-s_fpn_fpnhead_8xb4-80k_ade20k-512x512.py', {}),
    'U-Net': ('unet/unet-s5-d16_fcn_4xb4-160k_cityscapes-512x1024.py', {}),
    'UPerNet': ('upernet/upernet_r18_4xb2-40k_cityscapes-512x1024.py', {}),
}
#: Families in the default suite: a cascade, tuples of logits, edge maps, a transformer, dropout used thrice.
QUICK = ('BiSeNetV2', 'DANet', 'OCRNet', 'PIDNet', 'SegFormer')
#: What cannot carry the contrastive loss, and the sentence that says so.
REFUSED = {
    'KNet': ('knet/knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512.py', 'IterativeDecodeHead does not'),
    'PointRend': ('point_rend/pointrend_r50_4xb2-80k_cityscapes-512x1024.py', 'is a PointHead|PointHead does not'),
    'Segmenter with a mask head': ('segmenter/segmenter_vit-s_mask_8xb1-160k_ade20k-512x512.py',
                                   'SegmenterMaskTransformerHead does not'),
}


def small_run(config: str, changes: dict, data, work_dir) -> Runner:
    """The config, federated as tools/fed_train.py does it, with small images and one round of one client."""
    size = changes.get('size', 64)
    cfg = Config.fromfile(find_config(f'mmseg::{config}'))
    federate_plain(cfg, Config.fromfile(ROOT / 'configs' / '_base_' / 'federated' / 'fedseg_noniid1.py'))
    tiny = tiny_config(data, work_dir)
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),
                dict(type='RandomResize', scale=(2 * size, size), ratio_range=(1.0, 1.2), keep_ratio=True),
                dict(type='RandomCrop', crop_size=(size, size)), dict(type='RandomFlip', prob=0.5)]
    edges = [transform for transform in cfg.train_pipeline if transform['type'] == 'GenerateEdge'] if (
        'train_pipeline' in cfg) else []
    tiny.train_dataloader.dataset.pipeline = [*pipeline, *edges, dict(type='PackSegInputs')]
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader', 'val_evaluator', 'test_evaluator'):
        cfg[key] = tiny[key]
    cfg.val_dataloader.dataset.indices = 1
    cfg.val_dataloader.dataset.pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(size, size)),
                                           dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
    heads = [cfg.model.decode_head, *_as_list(cfg.model.get('auxiliary_head'))]
    for head in [one for group in heads for one in _as_list(group)]:
        if head.type == 'IterativeDecodeHead':
            head = head.kernel_generate_head
        head.num_classes = 2 if head.type == 'STDCHead' else 4
        for loss in _as_list(head.get('loss_decode')):
            loss.pop('class_weight', None)
    for part in (cfg.model, cfg.model.backbone, *(cfg.model.backbone.get(key) or {} for key in (
            'backbone_cfg', 'context_cfg'))):
        part['pretrained'] = None
        part.pop('init_cfg', None)
        if part is not cfg.model:
            part.pop('pretrained')
    cfg.model.data_preprocessor.size = (size, size)
    cfg.model.data_preprocessor.pop('test_cfg', None)
    cfg.optim_wrapper.update(type='OptimWrapper')
    for key in ('dtype', 'loss_scale'):
        cfg.optim_wrapper.pop(key, None)
    cfg.merge_from_dict({
        'work_dir': str(work_dir), 'federated.clients_per_round': 1, 'federated.local_epochs': 1,
        'federated.partitioner.clients_per_class': 2,
        'federated.partitioner.classes_per_client': 2,  # negatives from the start
        'train_cfg.max_rounds': 1, 'train_cfg.val_interval': 1,
        'federated.algorithm.start_round': 0, 'federated.algorithm.threshold': 0.0, 'param_scheduler': [],
        'default_hooks.checkpoint.interval': 1,
        **{key: value for key, value in changes.items() if key != 'size'}})
    federate(cfg)
    cfg.experiment_name = f'family_{work_dir.name}'
    return Runner.from_cfg(cfg)


def _as_list(value) -> list:
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]


@pytest.mark.parametrize('family', [
    family if family in QUICK else pytest.param(family, marks=pytest.mark.slow) for family in FAMILIES])
def test_a_round_of_fedseg(tiny_data, tmp_path, family):
    config, changes = FAMILIES[family]
    runner = small_run(config, changes, tiny_data, tmp_path)
    runner.train()
    line, = map(json.loads, (next(tmp_path.glob('*/vis_data')) / 'rounds.json').read_text().splitlines())
    client, = line['clients']
    assert client['used'] and client['loss'] > 0
    assert client['loss_contrast'] > 0 and client['loss_contrast_pseudo'] > 0
    assert any(isinstance(module, BackCELoss) for module in runner.model.modules())
    assert (tmp_path / 'round_1.pth').is_file()


@pytest.mark.slow
@pytest.mark.parametrize('family', REFUSED)
def test_what_cannot_carry_the_contrastive_loss_is_refused_in_one_sentence(tiny_data, tmp_path, family):
    config, sentence = REFUSED[family]
    with pytest.raises(FedSegError, match=sentence) as refused:
        small_run(config, {}, tiny_data, tmp_path).train()
    assert '\n' not in str(refused.value)


def listing() -> str:
    """The text of docs/models.md."""
    lines = [
        '# Models', '',
        'Families of MMSegmentation 1.2.2 whose packaged config trains with FedSeg, the contrastive loss included, '
        'unchanged:', '',
        '<!-- not run: needs data and a GPU; this page is of tests -->', '```bash',
        'python tools/fed_train.py mmseg::CONFIG --federated configs/_base_/federated/fedseg_noniid1.py', '```', '',
        'Each ran one round and an evaluation in a test, shrunk to small images and, where a line says so, to fewer '
        'layers; `pytest -m slow tests/test_model_families.py` runs them all. Other configs of a family are expected '
        'to work alike. In PIDNet the boundary-aware term counts all unannotated pixels, also those away from '
        'boundaries.', '', '| family | config | shrunk for the test |', '|---|---|---|']
    for family, (config, changes) in FAMILIES.items():
        layers = 'layers' if 'model.backbone.num_layers' in changes else ''
        lines.append(f'| {family} | `{config}` | {layers} |')
    lines += ['', 'Refused in one sentence, because no convolution classifies pixel embeddings there; FedAvg and the '
              'other methods without pixel embeddings train them where their losses are maps of classes:', '']
    lines += [f'- {family} (`{config}`)' for family, (config, _) in REFUSED.items()]
    lines += ['', 'Generated by `python -m tests.test_model_families > docs/models.md`.']
    return '\n'.join(lines) + '\n'


def test_the_list_in_the_docs_is_this_one():
    assert (ROOT / 'docs' / 'models.md').read_text() == listing()


if __name__ == '__main__':
    print(listing(), end='')
