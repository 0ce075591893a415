"""What clients keep on disk, seen by a user of the tools."""
import shutil

import pytest

from tests.conftest import run_tool, write_config


@pytest.fixture
def run(tiny_data, tmp_path):
    """A training of one round."""
    def run(**algorithm):
        config = write_config(tiny_data, tmp_path, **{
            'federated.algorithm': algorithm, 'train_cfg.max_rounds': 1, 'train_cfg.val_interval': 1})
        done = run_tool('fed_train', config)
        assert done.returncode == 0, done.stdout + done.stderr
        return config

    return run


def refusal(*arguments) -> str:
    done = run_tool(*arguments)
    assert done.returncode == 1 and 'Traceback' not in done.stderr, done.stderr
    return done.stderr.strip().splitlines()[-1]


def test_resume_without_the_clients_states_is_refused(run, tmp_path):
    config = run(type='SCAFFOLD')
    again = 'fed_train', config, '--resume', '--cfg-options', 'train_cfg.max_rounds=2'
    shutil.rmtree(tmp_path / 'clients')
    assert 'is not that of the checkpoint: bring back the folder' in refusal(*again)
    changed = refusal(*again, 'federated.algorithm.batch_norm=local')
    assert 'was trained with another `federated.algorithm.batch_norm`' in changed


def test_the_initial_model_of_local_only_is_no_result(run, tmp_path):
    config = run(type='LocalOnly')
    assert (next(tmp_path.glob('*/vis_data')) / 'clients.json').is_file()
    for arguments in (('test', config, tmp_path / 'round_1.pth'), ('fed_publish', tmp_path / 'round_1.pth')):
        assert 'of LocalOnly holds the initial model' in refusal(*arguments)
