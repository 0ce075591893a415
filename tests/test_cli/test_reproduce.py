"""The table's runs: complete, killed, stopped, failed, and on another machine; the table itself."""
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest
from mmseg.registry import DATASETS

from fedseg_mm.run_logs import RunLogs
from reproduction import PROTOCOLS, KeptState, Protocol, RowResults, Run, kept_state
from reproduction import cli as reproduce
from reproduction.table import cell
from tests.conftest import ROOT, run_tool, write_config

#: Adds a protocol of small rows and runs the tool, in a process that can be killed.
SCRIPT = """
import sys
from reproduction import cli as reproduce
reproduce.PROTOCOLS['tiny'] = reproduce.Protocol('tiny', {'MOON': sys.argv[1]})
reproduce.main(['--protocol', 'tiny', *sys.argv[2:]])
"""
ROUNDS = 10


@pytest.fixture(scope='module')
def config(tiny_data, tmp_path_factory) -> str:
    """Ten rounds of a method whose clients keep something, evaluated after every second one."""
    return write_config(tiny_data, tmp_path_factory.mktemp('config'), **{
        'train_cfg.max_rounds': ROUNDS, 'train_cfg.val_interval': 2, 'federated.algorithm': dict(type='MOON'),
        'default_hooks.checkpoint.interval': 2, 'default_hooks.mean_evaluation': dict(type='MeanEvaluationHook'),
        'optim_wrapper.optimizer.lr': 0.3, 'param_scheduler': []})


@pytest.fixture
def tiny(monkeypatch, config) -> Protocol:
    protocol = Protocol('tiny', {'MOON': config}, jobs=2)
    monkeypatch.setitem(PROTOCOLS, 'tiny', protocol)
    return protocol


def tool(*arguments) -> int:
    """Run the tool in this process; its exit code."""
    with pytest.raises(SystemExit) as end:
        reproduce.main(['--protocol', 'tiny', *map(str, arguments)])
    return end.value.code or 0


@pytest.fixture(scope='module')
def whole(config, tmp_path_factory) -> tuple[Path, dict]:
    """An uninterrupted run: its folder, with `work` and `results`, and its result."""
    folder = tmp_path_factory.mktemp('whole')
    subprocess.run([sys.executable, '-c', SCRIPT, config, '--work-dir', folder / 'work', '--results',
                    folder / 'results'], check=True, cwd=ROOT)
    result, = RowResults(folder / 'results' / 'tiny' / 'MOON.json').read()
    return folder, result


def test_the_result_is_what_the_training_logged(whole):
    folder, result = whole
    (work_dir, ) = (folder / 'work' / 'tiny').iterdir()
    log = (work_dir / 'train.log').read_text()
    rounds, figures = re.findall(r'Mean of the evaluations after rounds ([\d, ]+): (.+)', log)[-1]
    assert rounds == '2, 4, 6, 8, 10' == ', '.join(str(one['round']) for one in result['evaluations'])
    assert {name: f'{value:.2f}' for name, value in result['mean_of_last_five'].items()}.items() <= dict(
        figure.split() for figure in figures.split(', ')).items()
    scalars = [json.loads(line) for line in next(work_dir.glob('*/vis_data/scalars.json')).read_text().splitlines()]
    assert [(line['step'], line['mIoU'], line['aAcc']) for line in scalars if 'mIoU' in line] == [
        (one['round'], one['mIoU'], one['aAcc']) for one in result['evaluations']]
    assert len({one['mIoU'] for one in result['evaluations']}) > 1
    lines = [json.loads(line) for line in next(work_dir.glob('*/vis_data/rounds.json')).read_text().splitlines()]
    assert result['rounds'][-1] == dict(
        round=ROUNDS, bytes_up=sum(line['bytes_up'] for line in lines), bytes_down=sum(
            line['bytes_down'] for line in lines))
    assert result['rounds'][0]['bytes_up'] == sum(line['bytes_up'] for line in lines[:2])
    assert result['wall_time_s'] >= sum(line['time'] for line in lines)
    assert result['partition'] == json.loads((work_dir / 'partition.json').read_text())['hash']
    assert '1 thread' in result['device'] and result['seed'] == 0 and result['split'] is None


def killed_after(config: str, rounds: int, folder: Path) -> Run:
    """Start the tool and SIGKILL it, and not its training, once a checkpoint is there; the training must end too."""
    run = Run(Protocol('tiny', {'MOON': config}), 'MOON', None, 0, (), folder / 'work', folder / 'results')
    with (folder / 'output.txt').open('a') as output:
        process = subprocess.Popen(
            [sys.executable, '-c', SCRIPT, config, '--work-dir', folder / 'work', '--results', folder / 'results'],
            cwd=ROOT, stdout=output, stderr=output)
    deadline = time.time() + 60
    while not (run.folder / f'round_{rounds}.pth').exists() and process.poll() is None and time.time() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, (folder / 'output.txt').read_text()
    time.sleep(0.5)
    size = run.log.stat().st_size
    time.sleep(0.5)
    assert run.log.stat().st_size == size and not run.result_file.exists()
    return run


def test_killed_twice_and_moved_equals_uninterrupted(whole, tiny, config, tmp_path, monkeypatch, capsys):
    """And a damaged or missing piece of what was moved is named."""
    monkeypatch.setattr(kept_state, 'PIECE', 100_000)
    killed_after(config, 2, tmp_path)
    run = killed_after(config, 6, tmp_path)
    state = KeptState(run, tmp_path / 'state')
    assert state.keep() and not state.keep()
    pieces = state.index()['pieces']
    assert len(pieces) > 2 and max(piece['bytes'] for piece in pieces) == 100_000
    (run.folder.parents[1]).rename(tmp_path / 'gone')
    here = ('--work-dir', tmp_path / 'work', '--results', tmp_path / 'results', '--state', tmp_path / 'state')

    reproduce.main(['--protocol', 'tiny', '--list', *map(str, here)])
    assert re.search(r'begun +MOON_seed0 +round [68] of 10: python tools/reproduce.py --protocol tiny --rows MOON '
                     r'--seeds 0 --work-dir \S+ --results \S+ --state \S+', capsys.readouterr().out)
    piece = state.folder / pieces[1]['file']
    content = piece.read_bytes()
    for spoilt, word in ((content[:-1] + b'x', 'damaged'), (None, 'missing')):
        piece.unlink() if spoilt is None else piece.write_bytes(spoilt)
        assert tool(*here) == 1
        error = capsys.readouterr().err
        assert f'reproduce: the piece {piece} of the state of MOON_seed0 is {word}: ' in error
        assert 'Traceback' not in error and not (run.folder / 'round_6.pth').exists()
    piece.write_bytes(content)

    assert tool(*here) == 0
    assert 'goes on after round' in capsys.readouterr().out
    result = run.result()
    assert {**result, 'wall_time_s': 0} == {**whole[1], 'wall_time_s': 0}
    assert state.index()['round'] == ROUNDS
    assert {path.name for path in state.folder.iterdir()} == {
        'index.json', *(piece['file'] for piece in state.index()['pieces'])}
    assert tool(*here) == 0 and 'All runs that were asked for (1) are complete' in capsys.readouterr().out


def test_a_failing_row_is_said_and_others_go_on(tiny, tiny_data, config, tmp_path, monkeypatch, capsys):
    short = {'train_cfg.max_rounds': 1, 'train_cfg.val_interval': 1}
    rows = {'CE': write_config(tiny_data, tmp_path / 'bad', **{**short, 'federated.clients_per_round': 99}),
            'BackCE': write_config(tiny_data, tmp_path / 'good', **short)}
    monkeypatch.setitem(PROTOCOLS, 'tiny', Protocol('tiny', rows))
    assert tool('--work-dir', tmp_path / 'work', '--results', tmp_path / 'results') == 1
    output, error = capsys.readouterr()
    log = next((tmp_path / 'work' / 'tiny').glob('CE_seed0_*')) / 'train.log'
    assert re.fullmatch(rf'reproduce: CE_seed0 failed: fed_train: .*99.* \(all of its output is in {log}\)\n', error)
    assert 'BackCE_seed0 is complete' in output and (tmp_path / 'results' / 'tiny' / 'BackCE.json').exists()
    assert 'FedAvg (CE)     | –' in output


def test_minutes_stop_everything(tiny, tmp_path, capsys):
    """After 3 seconds a training has started, and has no round behind it."""
    started = time.time()
    assert tool('--work-dir', tmp_path / 'work', '--results', tmp_path / 'results', '--minutes', 0.05) == 0
    output = capsys.readouterr().out
    assert 'Stopped, as the 0.05 minutes are over: 0 of 1 runs are complete, 0 begun, 1 to be started.' in output
    assert time.time() - started < 30
    (folder, ) = (tmp_path / 'work' / 'tiny').iterdir()
    commands = subprocess.run(['ps', '-eo', 'args'], capture_output=True, text=True).stdout
    assert str(folder) not in commands


def test_a_run_that_another_process_trains_is_left_to_it(tiny, config, tmp_path, monkeypatch, capsys):
    import fcntl

    from reproduction import training
    monkeypatch.setattr(training, 'PATIENCE', 0)
    run = Run(tiny, 'MOON', None, 0, (), tmp_path / 'work', tmp_path / 'results')
    run.folder.mkdir(parents=True)
    with (run.folder / 'lock').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert tool('--work-dir', tmp_path / 'work', '--results', tmp_path / 'results') == 1
    assert 'MOON_seed0 is being trained by another process' in capsys.readouterr().err


# --- no training ------------------------------------------------------------
def made_up(folder: Path, row: str, split: str | None, seed: int, figures: list[float], options: tuple = (),
            protocol: str = 'cpu', **changes) -> dict:
    """A result of a protocol, with made-up figures."""
    run = Run(PROTOCOLS[protocol], row, split, seed, options, folder / 'work', folder / 'results')
    result = dict(
        row=row, split=split, seed=seed, options=list(options), config_hash=run.config_hash, partition='one',
        evaluations=[dict(round=10 * i, mIoU=value, aAcc=50.) for i, value in enumerate(figures, 1)],
        mean_of_last_five=dict(mIoU=sum(figures) / len(figures), aAcc=50.),
        rounds=[dict(round=10 * i, bytes_up=10 * i, bytes_down=20 * i) for i in range(1, len(figures) + 1)])
    RowResults(run.result_file).put({**result, **changes})
    return result


def test_the_table_has_what_is_there(tmp_path, capsys):
    made_up(tmp_path, 'CE', 'noniid1', 0, [10., 12.])
    for seed, miou in enumerate((20., 23., 26.)):
        made_up(tmp_path, 'BackCE', 'noniid1', seed, [miou])
    made_up(tmp_path, 'centralised', None, 0, [40.])
    made_up(tmp_path, 'MOON', 'noniid2', 0, [30.], config_hash='of another config')
    made_up(tmp_path, 'FedSeg', 'noniid1', 0, [30.], partition='another')
    reproduce.main(['--table', '--markdown', '--results', str(tmp_path / 'results')])
    output = capsys.readouterr().out
    for line in ('|  | non-IID1 | published | non-IID2 | published |',
                 '| FedAvg (CE) | 11.00 / 50.00 | 19.06 / 51.71 | – | 32.12 / 69.55 |',
                 # 20, 23, 26 have the sample standard deviation 3
                 '| FedAvg + BackCE | 23.00 ± 3.00 / 50.00 ± 0.00 (3 seeds) | 58.38 / 88.51 | – | 62.13 / 90.00 |',
                 '| MOON + BackCE | – | 58.90 / 87.96 | – | 62.77 / 90.98 |',
                 '| all images and labels in one place | 40.00 / 50.00 | – | 40.00 / 50.00 | – |',
                 'Left out, as the settings have changed since: MOON_noniid2_seed0. Run them again.',
                 'The rows of noniid1 with seed 0 have different partitions: BackCE, CE and FedSeg; they were made '
                 'with other images.'):
        assert line in output.splitlines(), line
    reproduce.main(['--table', '--results', str(tmp_path / 'results')])
    assert re.search(r'FedAvg \+ BackCE +\| 23.00 ± 3.00 / 50.00 ± 0.00 \(3 seeds\)', capsys.readouterr().out)
    assert cell([]) == '–'


def test_a_table_of_its_own_has_no_published_column(tmp_path, capsys):
    for row, miou in (('BackCE', 20.), ('BackCE-dice', 30.)):
        made_up(tmp_path, row, None, 0, [miou], protocol='losses')
    reproduce.main(['--protocol', 'losses', '--table', '--markdown', '--results', str(tmp_path / 'results')])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == '|  | mIoU / aAcc |'
    assert '| FedAvg + BackCE | 20.00 / 50.00 |' in lines and '| BackCE and `DiceLoss` | 30.00 / 50.00 |' in lines


def test_a_reader_that_has_read_enough_ends_the_tool_quietly():
    """As ``| head -1`` does."""
    tool = subprocess.Popen([sys.executable, ROOT / 'tools' / 'reproduce.py', '--list'], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, cwd=ROOT)
    tool.stdout.close()
    assert tool.stderr.read() == b''
    assert tool.wait() == 128 + signal.SIGPIPE


def test_variants_stand_beside_their_row(tmp_path, capsys):
    """Differences are those of the same seeds."""
    option = 'optim_wrapper.optimizer.lr=0.1'
    for seed, miou in enumerate((20., 23., 26.)):
        made_up(tmp_path, 'BackCE', 'noniid1', seed, [miou])
    for seed, miou in ((0, 21.), (1, 26.)):
        made_up(tmp_path, 'BackCE', 'noniid1', seed, [miou], (option, ))
    made_up(tmp_path, 'BackCE', 'noniid2', 0, [30.], (option, ))
    made_up(tmp_path, 'BackCE', 'noniid1', 2, [27.], ('federated.local_epochs=1', ))
    made_up(tmp_path, 'BackCE', 'noniid1', 1, [27.], ('federated.local_epochs=1', ), config_hash='of another config')
    made_up(tmp_path, 'CE', 'noniid1', 0, [10.])
    reproduce.main(['--variants', '--markdown', '--results', str(tmp_path / 'results')])
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith('|')] == [
        '| row | settings | non-IID1 | difference | non-IID2 | difference |',
        '| --- | --- | --- | --- | --- | --- |',
        '| BackCE | as in the protocol | 23.00 ± 3.00 / 50.00 ± 0.00 (3 seeds) | – | – | – |',
        '| BackCE | `federated.local_epochs=1` | 27.00 / 50.00 | +1.00 | – | – |',
        f'| BackCE | `{option}` | 23.50 ± 3.54 / 50.00 ± 0.00 (2 seeds) | +2.00 ± 1.41 | 30.00 / 50.00 | – |']


def test_curves_of_all_rows(tmp_path, capsys):
    for seed in range(3):
        made_up(tmp_path, 'CE', 'noniid1', seed, [10., 12. + seed])
    made_up(tmp_path, 'centralised', None, 0, [40.])
    reproduce.main(['--plot', str(tmp_path / 'curves'), '--results', str(tmp_path / 'results')])
    assert [path.name for path in (tmp_path / 'curves').iterdir()] == ['convergence_noniid1.png']
    assert cv2.imread(str(tmp_path / 'curves' / 'convergence_noniid1.png')).shape[1] > 1000


def test_panels_of_rows_that_have_a_checkpoint(whole, config, tmp_path, monkeypatch, capsys):
    """A trained row without splits stands on the pictures of both splits, if another row has them."""
    split = Path(config).with_name('{split}.py')
    for name in ('noniid1', 'noniid2'):
        split.with_name(f'{name}.py').write_text(f"_base_ = '{config}'\n")
    protocol = Protocol('tiny', {'FedSeg': str(split), 'MOON': config, 'CE': str(split)})
    monkeypatch.setitem(PROTOCOLS, 'tiny', protocol)
    work = tmp_path / 'work'
    shutil.copytree(whole[0] / 'work', work)
    run = Run(protocol, 'FedSeg', 'noniid1', 0, (), work, tmp_path)
    shutil.copytree(next((work / 'tiny').iterdir()), run.folder)
    reproduce.main(['--protocol', 'tiny', '--panels', str(tmp_path / 'panels'), '--work-dir', str(work)])
    assert [path.name for path in (tmp_path / 'panels').iterdir()] == ['panels_noniid1.png']
    height, width, _ = cv2.imread(str(tmp_path / 'panels' / 'panels_noniid1.png')).shape
    assert width == pytest.approx(120 * 2.1 * 4, abs=2)  # image, truth, and the rows with a checkpoint


def test_rows_of_a_seed_share_the_partition():
    """A seed is that of the training and of the partition."""
    run = Run(PROTOCOLS['cpu'], 'FedSeg', 'noniid2', 3, (), Path('work'), Path('results'))
    assert run.cfg.randomness.seed == 3 and run.cfg.federated.partitioner.seed == 3
    assert run.cfg.federated.algorithm.type == 'FedSeg' and run.cfg.federated.partitioner.classes_per_client == 2


def test_rows_of_one_config_differ_by_the_protocols_options():
    protocol = PROTOCOLS['cpu-pretrained-held-out']
    plain, balanced = (Run(protocol, row, 'noniid1', 0, (), Path('work'), Path('results'))
                       for row in ('FedSeg', 'FedSeg-balanced'))
    assert plain.config == balanced.config and plain.config_hash != balanced.config_hash
    assert balanced.cfg.model.decode_head.loss_decode.balance_power == 0.5
    assert 'balance_power' not in plain.cfg.model.decode_head.loss_decode


def test_settings_are_chosen_without_the_test_images(camvid, monkeypatch):
    """Trained on CamVid's images for training, evaluated on those for validation."""
    monkeypatch.setenv('FEDSEG_CAMVID', str(camvid))
    protocol = PROTOCOLS['cpu-pretrained-held-out']
    for row in ('BackCE', 'FedSeg-balanced', 'centralised-masked', 'local-only'):  # of every kind
        cfg = Run(protocol, row, protocol.splits(row)[0], 0, (), Path('work'), Path('results')).cfg
        names = {split: {Path(info['img_path']).name for info in DATASETS.build(
            without_pipelines(cfg[f'{split}_dataloader'].dataset))} for split in ('train', 'val')}
        folders = {split: {path.name for path in (camvid / 'img_dir' / split).iterdir()} for split in ('train', 'val')}
        assert names == folders and not names['train'] & names['val']


def without_pipelines(dataset):
    if 'datasets' in dataset:
        return {**dataset, 'datasets': [{**part, 'pipeline': []} for part in dataset['datasets']]}
    return {**dataset, 'pipeline': []}


def test_the_hash_is_of_the_settings_and_not_of_the_machine(tmp_path, monkeypatch):
    def hashed(*options, seed=0):
        return Run(PROTOCOLS['cpu'], 'CE', 'noniid1', seed, options, Path('work'), Path('results')).config_hash

    first = hashed()
    monkeypatch.setenv('FEDSEG_CAMVID', str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert hashed() == first == hashed('work_dir=elsewhere', 'log_level=ERROR', 'resume=True',
                                       'default_hooks.logger.interval=5')
    others = hashed('optim_wrapper.optimizer.lr=0.1'), hashed('federated.local_epochs=1'), hashed(seed=1)
    assert len({first, *others}) == 4


def test_every_run_has_a_config_and_a_command(capsys, tmp_path):
    # cpu: seeds 1 and 2 of four rows; the bound of all labels has no split
    expected = {'cpu': 8 * 2 + 1 + 2 * 4 * 2, 'cpu-pretrained': 3 * (12 * 2 + 1) + 2,
                'cpu-pretrained-held-out': 13 * 2 + 1, 'local-epochs': 12 * 2, 'losses': 7 * 3, 'paper': 6 * 2}
    assert PROTOCOLS.keys() == expected.keys()
    for name, number in expected.items():
        reproduce.main(['--protocol', name, '--list', '--results', str(tmp_path), '--work-dir', str(tmp_path)])
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == number
        assert all(line.startswith('missing') and '--rows' in line for line in lines)


@pytest.mark.parametrize('arguments, sentence', [
    (['--rows', 'FedFoo'], 'reproduce: the protocol cpu has no row FedFoo: its rows are CE, BackCE'),
    (['--protocol', 'paper', '--rows', 'centralised'], 'the protocol paper has no row centralised'),
    (['--jobs', '0'], '--jobs must be above 0, but is 0'),
    (['--plot', 'figures', '--results', 'nothing'], 'there is nothing to draw')])
def test_mistakes_are_told(arguments, sentence):
    with pytest.raises(SystemExit) as end:
        reproduce.main(arguments)
    assert sentence in end.value.code


def test_curves_and_no_panels_is_said(tmp_path, monkeypatch, capsys):
    made_up(tmp_path, 'CE', 'noniid1', 0, [10., 12.])
    monkeypatch.setattr(reproduce, 'check_data_folders', lambda cfg, loaders: None)
    with pytest.raises(SystemExit) as end:
        reproduce.main(['--plot', str(tmp_path / 'curves'), '--panels', str(tmp_path / 'panels'), '--rows', 'CE',
                        '--results', str(tmp_path / 'results'), '--work-dir', str(tmp_path / 'work')])
    assert end.value.code == (f'reproduce: there is nothing to draw: panels need the checkpoints that trainings with '
                              f'seed 0 left in {tmp_path}/work; train a row first')
    assert 'Picture ' in capsys.readouterr().out


def test_the_papers_protocol_needs_a_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    with pytest.raises(SystemExit) as end:
        reproduce.main(['--protocol', 'paper', '--results', str(tmp_path)])
    assert 'the protocol paper is meant for a GPU, and there is none: take --protocol cpu' in end.value.code


def test_half_a_line_of_a_log_is_no_entry(tmp_path):
    def entry(round: int, time: int) -> str:
        return json.dumps(dict(round=round, time=time, cohort=[], images=0, bytes_up=0, bytes_down=0, clients=[]))

    for name, text in (('1', f'{entry(1, 1)}\n{entry(2, 2)}\n{entry(3, 3)[:20]}'), ('2', f'{entry(2, 5)}\n')):
        (tmp_path / name / 'vis_data').mkdir(parents=True)
        (tmp_path / name / 'vis_data' / 'rounds.json').write_text(text)
    assert {number: line['time'] for number, line in RunLogs(tmp_path).rounds.items()} == {1: 1, 2: 5}


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as end:
        reproduce.main(['--help'])
    assert end.value.code == 0
    output = capsys.readouterr().out
    for text in ('--state', '--minutes', 'examples:', 'python tools/reproduce.py --protocol cpu'):
        assert text in output


@pytest.mark.parametrize('protocol, number', [('cpu', 9), ('cpu-pretrained', 14)])
def test_the_document_has_the_table_of_the_results_that_are_kept(protocol, number):
    done = run_tool('reproduce', '--protocol', protocol, '--table', '--markdown', cwd=ROOT)
    assert done.returncode == 0 and 'Left out' not in done.stdout, done.stderr + done.stdout
    rows = [line for line in done.stdout.splitlines() if line.startswith('|')][2:]
    document = (ROOT / 'docs' / 'results.md').read_text()
    assert len(rows) == number and all(row in document for row in rows)


@pytest.mark.parametrize('protocol', ['cpu', 'cpu-pretrained-held-out'])
def test_the_document_has_the_settings_that_were_tried(protocol):
    done = run_tool('reproduce', '--protocol', protocol, '--variants', '--markdown', cwd=ROOT)
    assert done.returncode == 0 and 'Left out' not in done.stdout, done.stderr + done.stdout
    rows = [line for line in done.stdout.splitlines() if line.startswith('|')][2:]
    document = (ROOT / 'docs' / 'reproduction.md').read_text()
    assert len(rows) > 9 and all(row in document for row in rows)


def test_local_epochs_differ_in_nothing_that_makes_steps_more_or_fewer(tmp_path):
    """80 passes over a client's images in all, the last five rounds evaluated, most rounds at the high rate."""
    protocol = PROTOCOLS['local-epochs']
    for row, (method, epochs) in protocol.local_epochs.items():
        cfg = Run(protocol, row, 'noniid2', 0, (), tmp_path, tmp_path).cfg
        rounds, loop = cfg.train_cfg.max_rounds, cfg.train_cfg
        assert cfg.federated.local_epochs == epochs and epochs * rounds == 80
        start, interval = loop.dynamic_intervals[-1]
        evaluated = [n for n in range(1, rounds + 1) if n % (interval if n + 1 >= start else loop.val_interval) == 0]
        assert interval == 1 and evaluated[-5:] == list(range(rounds - 4, rounds + 1))
        assert 0.8 <= cfg.param_scheduler[0].milestones[0] / rounds <= 0.85
        other = Run(PROTOCOLS['cpu-pretrained'], method, 'noniid2', 0, (), tmp_path, tmp_path)
        own = Run(protocol, row, 'noniid2', 0, (), tmp_path, tmp_path)
        assert (own.config_hash == other.config_hash) == (epochs == 2)


def test_local_epochs_have_a_table_and_a_picture(tmp_path, capsys):
    results = tmp_path / 'results'
    for row in ('BackCE-2', 'BackCE-8', 'FedSeg-2'):
        for seed, value in ((0, 40.0), (1, 42.0)):
            run = Run(PROTOCOLS['local-epochs'], row, 'noniid2', seed, (), tmp_path, results)
            RowResults(results / 'local-epochs' / f'{row}.json').put(dict(
                split='noniid2', seed=seed, options=[], row=row, config_hash=run.config_hash, partition='p',
                mean_of_last_five=dict(mIoU=value, aAcc=80.0), rounds=[dict(bytes_up=1, bytes_down=2)],
                evaluations=[], environment={}, commit=''))
    reproduce.main(['--protocol', 'local-epochs', '--table', '--markdown', '--results', str(results)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == '|  | non-IID1 | non-IID2 |'
    assert '| BackCE, 8 local epochs | – | 41.00 ± 1.41 / 80.00 ± 0.00 (2 seeds) |' in lines
    reproduce.main(['--protocol', 'local-epochs', '--plot', str(tmp_path / 'figures'), '--results', str(results)])
    assert [path.name for path in (tmp_path / 'figures').iterdir()] == ['local_epochs_noniid2.png']


def test_the_page_on_losses_has_the_results_that_are_kept():
    done = run_tool('reproduce', '--protocol', 'losses', '--table', '--markdown', cwd=ROOT)
    assert done.returncode == 0 and 'Left out' not in done.stdout, done.stderr + done.stdout
    document = (ROOT / 'docs' / 'losses.md').read_text().splitlines()
    rows = [[part.strip() for part in line.strip('|').split('|')] for line in done.stdout.splitlines()[2:]]
    assert len(rows) == 7
    for title, figures in rows:
        name = title.split(' and ')[1] if ' and ' in title else '`BackCELoss`'
        assert any(line.startswith(f'| {name} |') and line.endswith(f'| {figures} |') for line in document), title


def test_the_readmes_figures_are_those_that_are_kept():
    """From ImageNet weights, all seeds, both splits: mIoU / pixel accuracy."""
    readme = (ROOT / 'README.md').read_text()
    for row, title in (('CE', 'FedAvg with plain cross-entropy'), ('BackCE', 'FedAvg with BackCE'),
                       ('FedSeg', 'FedSeg (BackCE and pixel contrast)'),
                       ('BackCE-balanced', 'FedAvg with BackCE that balances classes (`balance_power=0.5`)'),
                       ('FedSeg-balanced', 'FedSeg with BackCE that balances classes')):
        results = RowResults(ROOT / 'results' / 'cpu-pretrained' / f'{row}.json').read()
        figures = [cell([one for one in results if one['split'] == split and not one['options']])
                   for split in ('noniid1', 'noniid2')]
        assert f'| {title} | {" | ".join(figures)} |' in readme
