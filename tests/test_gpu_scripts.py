"""The scripts for a GPU, gone through on a CPU: they go on where they were, stop in time and end with one JSON."""
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT

BENCHMARKS = ROOT / 'benchmarks'


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu
    return gpu


def script(name: str, state: Path, *options: str) -> subprocess.CompletedProcess:
    return subprocess.run(['bash', str(BENCHMARKS / f'gpu_{name}.sh'), '--state', str(state), *options],
                          capture_output=True, text=True, timeout=600, cwd=state,
                          env={**os.environ, 'PYTHON': sys.executable})


def steps_of(gpu, folder: Path, *codes: str):
    """Steps that note that they were taken and run some code."""

    def step(name, code):
        note = f'open(r"{folder / name}", "a").write("x"); '
        return gpu.Step(name, ['-c', note + code], lambda: dict(value=len((folder / name).read_text())))

    return [step(f'step{place}', code) for place, code in enumerate(codes)]


def test_a_part_goes_on_with_what_was_not_finished(gpu, tmp_path):
    """A step that fails or is cut off is taken again, one that is done is not."""
    fails = 'import sys; sys.exit(3)'
    steps = steps_of(gpu, tmp_path, 'pass', fails, 'pass')
    first = gpu.run('right', steps, tmp_path, 60, 'cpu')
    assert first['done'] == ['step0', 'step2'] and first['left'] == ['step1']
    assert first['figures']['step1']['error'] == 'ended with 3'
    second = gpu.run('right', steps_of(gpu, tmp_path, 'pass', 'pass', 'pass'), tmp_path, 60, 'cpu')
    assert second['left'] == [] and 'error' not in second['figures']['step1']
    assert [second['figures'][f'step{place}']['value'] for place in range(3)] == [1, 2, 1]
    assert json.loads((tmp_path / 'right.json').read_text()) == second


def test_a_part_stops_in_time(gpu, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, 'LEAST', 2)
    found = gpu.run('fast', steps_of(gpu, tmp_path, 'import time; time.sleep(60)', 'pass'), tmp_path, 3, 'cpu')
    assert found['done'] == [] and found['left'] == ['step0', 'step1'] and not (tmp_path / 'step1').exists()


def test_tests_that_failed_are_figures(gpu, tmp_path):
    (tmp_path / 'test_some.py').write_text(
        'import pytest\ndef test_good(): pass\ndef test_bad(): assert 0\ndef test_not(): pytest.skip("no")\n')
    step = gpu.tests_step('some', tmp_path, ['-n', '0', '-c', os.devnull, '-p', 'no:cacheprovider',
                                             str(tmp_path / 'test_some.py')])
    found = gpu.run('right', [step], tmp_path, 60, 'cpu')
    one = found['figures']['some']
    assert (one['passed'], one['failed'], one['skipped']) == (1, 1, 1) and found['done'] == ['some']
    assert len(one['failed_tests']) == 1 and one['failed_tests'][0].endswith('test_bad')


@pytest.mark.parametrize('part', ['right', 'fast', 'real'])
def test_the_steps_name_what_there_is(gpu, part, tmp_path):
    for dry in (True, False):
        steps = gpu.PARTS[part](tmp_path, dry, 9.5)
        assert len({step.name for step in steps}) == len(steps)
        for step in steps:
            files = [argument for argument in step.command if argument.startswith(('/', 'tests/'))
                     and not argument.startswith(str(tmp_path))]
            assert files or step.name == 'cpu_suite'
            assert all((ROOT / file).exists() for file in files), files


def test_without_a_gpu_it_says_so(gpu, tmp_path):
    with pytest.raises(SystemExit, match='--dry goes through this on a CPU'):
        gpu.main(['right', '--state', str(tmp_path)])


@pytest.mark.slow
@pytest.mark.parametrize('part, steps', [
    ('right', ['gpu_losses']), ('fast', ['fold', 'steps']), ('real', ['paper_backce_noniid1'])])
def test_dry(part, steps, tmp_path):
    done = script(part, tmp_path, '--dry')
    assert done.returncode == 0, done.stderr[-3000:]
    content = json.loads(done.stdout)  # that, and nothing else
    assert content['done'] == steps and content['left'] == [] and content['part'] == part
    figures = content['figures']
    if part == 'right':
        assert figures['gpu_losses']['failed'] == 0 and figures['gpu_losses']['passed'] > 60
    if part == 'fast':
        assert figures['fold']['fold_vs_copy']['value'] > 0
        assert figures['steps']['narrow']['float32 contiguous torch']['ms'] > 0
        assert set(figures['steps']['loading']) == {'0', '1'}
    if part == 'real':
        found = figures['paper_backce_noniid1']
        assert found['rounds'] == 2 and found['complete'] and list(found['mIoU']) == ['1', '2']
        assert found['seconds_per_round'] > 0
        assert json.loads(script(part, tmp_path, '--dry').stdout) == content  # nothing was done again


def test_a_pack_holds_camvid_and_tells_its_size(tmp_path):
    for kind in ('img_dir', 'ann_dir'):
        (tmp_path / 'camvid' / kind / 'train').mkdir(parents=True)
        (tmp_path / 'camvid' / kind / 'train' / 'a.png').write_bytes(b'x' * 250_000)
    (tmp_path / 'camvid' / 'archive.zip').write_bytes(b'x' * 10**6)
    command = [sys.executable, str(BENCHMARKS / 'pack_gpu.py'), str(tmp_path / 'pack.tar'), '--no-wheels', '--camvid']
    done = subprocess.run([*command, str(tmp_path / 'camvid')], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == 'camvid: 0.5 MB' and 'pack.tar: 0.5 MB' in done.stdout
    with tarfile.open(tmp_path / 'pack.tar') as archive:
        assert [name for name in archive.getnames() if name.endswith('.png')] == [
            'gpu_pack/camvid/ann_dir/train/a.png', 'gpu_pack/camvid/img_dir/train/a.png']
    done = subprocess.run([*command, str(tmp_path / 'none')], capture_output=True, text=True)
    assert done.returncode == 1 and 'there is no CamVid in' in done.stderr


def test_what_is_packed_leaves_torch_out(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import pack_gpu
    wanted = pack_gpu.requirements()
    names = {one.split('==')[0].lower().replace('_', '-') for one in wanted}
    assert {'mmengine', 'mmcv-lite', 'mmsegmentation', 'ftfy', 'pytest', 'addict'} <= names
    assert not names & {'torch', 'triton', 'fedseg-mm'} and not [name for name in names if name.startswith('nvidia')]
    assert f'torch=={torch.__version__}' not in wanted and all(one.count('==') == 1 for one in wanted)
