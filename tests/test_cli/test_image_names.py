"""Two test images of one name: no prediction is lost silently."""
import shutil

import pytest
import torch

from fedseg_mm.cli.test import main
from tests.conftest import write_config


@pytest.mark.parametrize('second, option, collide', [
    ('b/000.png', '--out', True), ('b/000.png', '--show-dir', True), ('b/001.png', '--out', False),
    ('b/000.jpg', '--out', True), ('b/000.jpg', '--show-dir', False)])
def test_images_of_one_name(own_data, tmp_path, second, option, collide, monkeypatch):
    """MMSegmentation names a map after its image, without its folder and its ending."""
    for kind in ('img_dir', 'ann_dir'):
        folder = own_data / kind / 'test'
        for name, file in (('a/000.png', '000.png'), (second if kind == 'img_dir' else second[:-4] + '.png',
                                                      '001.png')):
            (folder / name).parent.mkdir()
            shutil.move(folder / file, folder / name)
        for file in ('002.png', '003.png'):
            (folder / file).unlink()
    parts = [dict(type='BaseSegDataset', img_suffix=second[-4:] if part == 'b' else '.png',
                  metainfo=dict(classes=('sky', 'road', 'car', 'tree')), data_root=str(own_data),
                  data_prefix=dict(img_path=f'img_dir/test/{part}', seg_map_path=f'ann_dir/test/{part}'),
                  pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')])
             for part in 'ab']
    config = write_config(own_data, tmp_path / 'run', visualizer=dict(
        type='SegLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')], name=f'v{option}{second}'), **{
        'test_dataloader.dataset': dict(type='ConcatDataset', datasets=parts, _delete_=True),
        'default_hooks.visualization': dict(type='SegVisualizationHook')})
    monkeypatch.setattr('fedseg_mm.cli.test.check_checkpoint', lambda model, content, path: None)
    torch.save(dict(state_dict={}), tmp_path / 'none.pth')
    arguments = [config, str(tmp_path / 'none.pth'), option, str(tmp_path / 'out'), '--cfg-options',
                 f'experiment_name=n{abs(hash(str(tmp_path)))}']
    if not collide:
        main(arguments)
        assert len([path for path in (tmp_path / 'out').rglob('*.png')]) == 2
        return
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code.startswith(f'test: {option} names files after images, but {own_data}/img_dir/test/a/000.png '
                                      f'and {own_data}/img_dir/test/{second} would share a name: rename')
