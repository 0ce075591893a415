"""The claim of the method, in short, on real CamVid; the whole protocol's figures are in docs/results.md."""
import json

import pytest

from tests.conftest import ROOT, run_tool


@pytest.mark.slow
@pytest.mark.parametrize('split', [1, 2])
def test_back_ce_is_far_above_cross_entropy(camvid, tmp_path, split):
    """Half of the protocol's rounds, about two minutes a row on one core."""
    miou = {}
    for row in ('ce', 'backce'):
        config = ROOT / 'configs' / 'fedavg' / f'upernet_camvid160x120_noniid{split}_{row}.py'
        done = run_tool('fed_train', config, '--work-dir', tmp_path / row, '--cfg-options', 'train_cfg.max_rounds=35',
                        'train_cfg.val_interval=35', FEDSEG_CAMVID=str(camvid))
        assert done.returncode == 0, done.stdout + done.stderr
        lines = (next((tmp_path / row).glob('*/vis_data')) / 'scalars.json').read_text().splitlines()
        miou[row] = [json.loads(line)['mIoU'] for line in lines if 'mIoU' in line][-1]
    assert miou['backce'] > miou['ce'] + 3, miou
