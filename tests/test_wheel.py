"""A wheel in an environment without the checkout."""
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.fixture(scope='module')
def wheel(tmp_path_factory) -> Path:
    """Built from a clean copy of the tracked files, so that nothing else can slip in."""
    folder = tmp_path_factory.mktemp('wheel')
    subprocess.run(['git', 'clone', '--quiet', str(ROOT), str(folder / 'clone')], check=True)
    subprocess.run([sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps', str(folder / 'clone'), '-w',
                    str(folder)], check=True, capture_output=True)
    return next(folder.glob('*.whl'))


@pytest.mark.slow
def test_the_wheel_ships_configs_tools_and_licence(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked = subprocess.run(['git', 'ls-files', 'configs', 'tools', 'fedseg_mm'], cwd=ROOT, capture_output=True,
                             text=True, check=True).stdout.split()
    for path in tracked:
        if path.startswith('fedseg_mm/.mim'):
            continue  # links to the folders
        if path == 'tools/reproduce.py':  # it needs the checkout that its results belong to
            assert f'fedseg_mm/.mim/{path}' not in names
            continue
        assert (path if path.startswith('fedseg_mm') else f'fedseg_mm/.mim/{path}') in names
    assert any(name.endswith('LICENSE') for name in names)


@pytest.mark.slow
def test_the_wheel_holds_nothing_that_the_repository_does_not(wheel):
    """Every file but the wheel's own records is a tracked one, byte for byte."""
    tracked = set(subprocess.run(['git', 'ls-files'], cwd=ROOT, capture_output=True, text=True,
                                 check=True).stdout.splitlines())
    with zipfile.ZipFile(wheel) as content:
        shipped = [name for name in content.namelist() if '.dist-info/' not in name and not name.endswith('/')]
        assert len(shipped) > 200
        for name in shipped:
            path = name.removeprefix('fedseg_mm/.mim/')
            assert path in tracked, name
            assert content.read(name) == (ROOT / path).read_bytes(), name
        records = {name.partition('.dist-info/')[2] for name in content.namelist() if '.dist-info/' in name}
    assert records <= {'METADATA', 'WHEEL', 'RECORD', 'top_level.txt', 'entry_points.txt', 'licenses/LICENSE'}


@pytest.mark.slow
def test_the_wheel_works_without_the_checkout(wheel, tmp_path):
    """Its own folder comes first on the path; the other packages are this environment's."""
    site, work = tmp_path / 'site', tmp_path / 'work'
    work.mkdir()
    subprocess.run([sys.executable, '-m', 'pip', 'install', '--quiet', '--no-deps', '--target', str(site), str(wheel)],
                   check=True, capture_output=True)
    environment = {**os.environ, 'PYTHONPATH': str(site)}

    def fedseg_mm(*arguments):
        done = subprocess.run([sys.executable, '-m', 'fedseg_mm', *map(str, arguments)], cwd=work, env=environment,
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    where = subprocess.run([sys.executable, '-c', 'import fedseg_mm; print(fedseg_mm.__file__)'], cwd=work,
                           env=environment, capture_output=True, text=True)
    assert where.stdout.strip().startswith(str(site))
    config = 'fedseg_mm::fedavg/upernet_streetscenes_noniid1_backce.py'
    assert '20 clients, 300 of 300 images' in fedseg_mm('partition', config)
    name = 'upernet_streetscenes_noniid1_backce'
    assert 'Round(train) [2/2]' in fedseg_mm('train', config, '--cfg-options', 'train_cfg.max_rounds=2')
    assert 'mIoU' in fedseg_mm('test', config, f'work_dirs/{name}/round_2.pth')
    assert 'Report       work_dirs' in fedseg_mm('report', f'work_dirs/{name}')
    (work / 'own.py').write_text(f"_base_ = '{config}'\ntrain_cfg = dict(max_rounds=1)\n")
    assert 'Round(train) [1/1]' in fedseg_mm('train', 'own.py')
    assert 'FedAvg with BackCE' in fedseg_mm('demo', '--rounds', 1)
