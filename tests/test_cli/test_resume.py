"""Nothing is lost: --resume after whatever may have happened to a work dir."""
import errno
import json
import os
import shutil
import signal
import uuid
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from fedseg_mm.cli import arguments
from fedseg_mm.cli.train import main
from tests.conftest import assert_same_bits, weights_of, write_config

SMALL = {
    'federated.partitioner': dict(type='ClassPartitioner', num_clients=4, classes_per_client=2),
    'federated.clients_per_round': 2, 'federated.local_epochs': 1, 'train_cfg.val_interval': 99,
    'train_cfg.max_rounds': 4, 'custom_hooks': [dict(type='KillHook')]}


@HOOKS.register_module()
class SignalHook(Hook):
    """Sends this process a signal in a round, after its first client, or in an evaluation."""

    def __init__(self, round, number=signal.SIGTERM, place='after_client'):
        self.round, self.number, self.place = round, number, place
        self.clients = 0

    def _send(self, runner, place):
        if place == self.place and runner.epoch == self.round:
            self.clients += 1
            if self.clients == 1:
                os.kill(os.getpid(), self.number)

    def before_client(self, runner, client):
        self._send(runner, 'before_client')

    def after_client(self, runner, update):
        self._send(runner, 'after_client')

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self._send(runner, 'after_val_iter')


@HOOKS.register_module()
class KillHook(Hook):
    """Ends a run in the middle of a round as a kill would: nothing is written."""

    round = None

    def after_client(self, runner, update):
        if runner.epoch == self.round:
            raise SystemExit('killed')


@pytest.fixture(autouse=True)
def interrupts():
    """As in a terminal: what runs in the background may have been started with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def config(data, folder, **changes) -> str:
    return write_config(data, folder, **{**SMALL, **changes})


def train(*arguments, options=()) -> None:
    """Run the tool in this process; MMEngine keeps one logger per experiment."""
    main([*map(str, arguments), '--cfg-options', f'experiment_name=r{uuid.uuid4().hex}', *options])


def log_of(work_dir: Path) -> str:
    return max(work_dir.glob('*/*.log'), key=lambda path: path.stat().st_mtime_ns).read_text()


def refusal(*arguments, options=()) -> str:
    with pytest.raises(SystemExit) as stop:
        train(*arguments, options=options)
    assert isinstance(stop.value.code, str) and '\n' not in stop.value.code
    return stop.value.code


def killed(config, round, *arguments, options=()) -> None:
    KillHook.round = round
    try:
        assert refusal(config, *arguments, options=options) == 'killed'
    finally:
        KillHook.round = None


def states(work_dir: Path) -> dict[str, bytes]:
    return {path.relative_to(work_dir).as_posix(): path.read_bytes()
            for path in work_dir.glob('clients*/*/round_*.pth')}


@pytest.fixture(scope='module')
def finished(tiny_data, tmp_path_factory):
    """FedDyn, whose clients keep a state: four rounds, a checkpoint after each, none removed."""
    folder = tmp_path_factory.mktemp('finished')
    train(config(tiny_data, folder / 'run', **{'federated.algorithm': dict(type='FedDyn')}))
    return folder / 'run'


@pytest.fixture
def run(finished, tmp_path) -> Path:
    """A copy of it, whose last_checkpoint and config still name the original."""
    return Path(shutil.copytree(finished, tmp_path / 'copy'))


def go_on(run, *arguments, rounds=4, options=()) -> None:
    train(run / 'config.py', '--work-dir', run, *(arguments or ['--resume']),
          options=(f'train_cfg.max_rounds={rounds}', *options))


def cut(path: Path, size: int = 1000) -> None:
    os.truncate(path, size)


def flip(path: Path) -> None:
    """A byte in the middle of a tensor."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(bytes(content))


# --- which checkpoint -------------------------------------------------------
def test_a_copied_work_dir_uses_its_own_files(run, finished):
    before = states(finished)
    for log in run.glob('*/*.log'):  # a run that begins in the same second would go on writing into it
        log.unlink()
    (run / 'round_4.pth').unlink()
    (run / 'last_checkpoint').write_text(str(finished / 'round_3.pth'))
    go_on(run)
    assert f'{run}/round_3.pth' in log_of(run) and str(finished / 'round') not in log_of(run)
    assert_same_bits(weights_of(finished / 'round_4.pth'), weights_of(run / 'round_4.pth'))
    assert states(finished) == before


@pytest.mark.parametrize('content', [None, '', 'round_9.pth', 'elsewhere/round_1.pth', b'\xff\xfe'])
def test_last_checkpoint_is_a_hint(run, content):
    hint = run / 'last_checkpoint'
    hint.unlink()
    if content is not None:
        hint.write_bytes(content if isinstance(content, bytes) else content.encode())
    before = states(run)
    with pytest.raises(SystemExit):  # which shows from where it would go on, and that this comes first
        train(run / 'config.py', '--work-dir', run, '--resume', options=('federated.algorithm.type=FedAvg', ))
    assert f'{run}/round_4.pth' in log_of(run) and states(run) == before


@pytest.mark.parametrize('spoil', [cut, flip, lambda path: path.write_bytes(b''), lambda path: path.write_text('hi')],
                         ids=['cut', 'flipped', 'empty', 'text'])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(run, finished, spoil):
    spoil(run / 'round_4.pth')
    go_on(run)
    assert f'round_4.pth in {run} is damaged or cut off, and the run goes on from round_3.pth.' in log_of(run)
    assert_same_bits(weights_of(finished / 'round_4.pth'), weights_of(run / 'round_4.pth'))


def test_no_whole_checkpoint_is_refused_and_nothing_is_deleted(run):
    before = states(run)
    for path in run.glob('round_*.pth'):
        cut(path)
    assert 'round_4.pth is damaged or cut off and no other is whole' in refusal(
        run / 'config.py', '--work-dir', run, '--resume')
    assert states(run) == before
    for path in run.glob('round_*.pth'):
        path.unlink()
    assert 'last_checkpoint names round_4.pth, which is not in' in refusal(
        run / 'config.py', '--work-dir', run, '--resume')
    assert states(run) == before


def test_a_named_file(run, finished, tmp_path):
    """The states that later checkpoints need stay until there is a checkpoint of the new rounds."""
    before = states(run)
    killed(run / 'config.py', 3, '--work-dir', run, '--resume', run / 'round_3.pth', options=(
        'train_cfg.max_rounds=4', ))
    assert 'resumed epoch: 3' in log_of(run) and before.items() <= states(run).items()
    go_on(run, '--resume', run / 'round_3.pth')
    assert_same_bits(weights_of(finished / 'round_4.pth'), weights_of(run / 'round_4.pth'))
    go_on(run, rounds=5)  # whose clients are those of the new fourth round
    assert 'resumed epoch: 4' in log_of(run)
    assert len({path.name for path in run.glob('clients*')}) == 1


def test_a_named_file_of_another_work_dir_brings_its_clients(run, finished, tmp_path):
    before = states(finished)
    train(run / 'config.py', '--work-dir', tmp_path / 'new', '--resume', finished / 'round_3.pth')
    assert_same_bits(weights_of(finished / 'round_4.pth'), weights_of(tmp_path / 'new' / 'round_4.pth'))
    assert states(finished) == before


def test_a_file_in_the_config(run, finished):
    for name in ('round_4.pth', 'last_checkpoint'):
        (run / name).unlink()
    train(run / 'config.py', '--work-dir', run, options=('resume=True', f'load_from={run}/round_3.pth'))
    assert_same_bits(weights_of(finished / 'round_4.pth'), weights_of(run / 'round_4.pth'))


@pytest.mark.parametrize('name, sentence', [
    ('round_7.pth', 'round_7.pth to resume from does not exist: name a file such as'),
    ('.', 'to resume from is a folder: name a file such as'),
    ('config.py', 'config.py cannot be read: it is damaged, is not a checkpoint'),
    ('best', 'is not of a federated run: start from it with'),
    ('flipped.pth', 'cannot be resumed, because it is damaged: restore a copy')])
def test_a_named_file_that_cannot_be_resumed(run, name, sentence):
    torch.save(dict(state_dict={}, meta=dict(epoch=1, iter=1), optimizer={}), run / 'best')
    shutil.copy(run / 'round_4.pth', run / 'flipped.pth')
    flip(run / 'flipped.pth')
    before = states(run)
    # a name that ends in .py would be taken for the config
    assert sentence in refusal(run / 'config.py', '--work-dir', run, f'--resume={run / name}')
    assert states(run) == before


def test_a_checkpoint_that_lacks_its_clients_is_refused_before_anything_is_deleted(run):
    """By hand, last_checkpoint and a file name the second round, of which no states are kept any more."""
    before = states(run)
    assert 'is not that of the checkpoint' in refusal(
        run / 'config.py', '--work-dir', run, '--resume', run / 'round_1.pth')
    assert states(run) == before
    (run / 'last_checkpoint').write_text(str(run / 'round_2.pth'))
    go_on(run, rounds=5)
    assert 'last_checkpoint names round_2.pth, but round_4.pth was written later and is resumed' in log_of(run)


def test_a_checkpoint_cannot_name_a_folder_elsewhere(run):
    content = torch.load(run / 'round_4.pth', weights_only=True)
    content['federated']['clients_folder'] = '../../clients'
    torch.save(content, run / 'evil.pth')
    assert 'as the folder of its clients, which no run' in refusal(
        run / 'config.py', '--work-dir', run, '--resume', run / 'evil.pth')


@pytest.mark.parametrize('words, expected', [
    ('a.py', False), ('a.py --resume', True), ('--resume a.py', True), ('--resume mmseg::a/b.py', True),
    ('a.py --resume round_2.pth', 'round_2.pth'), ('--resume=round_2.pth a.py', 'round_2.pth'),
    ('a.py --resume --amp', True)])
def test_what_follows_the_flag(words, expected):
    args = arguments.train(words.split())
    assert args.resume == expected and args.config.endswith('.py')


# --- a work dir that is used again ------------------------------------------
def test_a_new_run_in_a_used_work_dir(run, finished):
    """It says so, spoils nothing before its own first checkpoint, and is then what --resume goes on from."""
    before = states(run)
    killed(run / 'config.py', 0, '--work-dir', run)
    said = 'holds checkpoints of an earlier run, such as round_4.pth: this run starts with round 1 and replaces'
    assert f'{run} {said}' in log_of(run)
    assert before.items() <= states(run).items()
    sentence = refusal(run / 'config.py', '--work-dir', run, options=('optim_wrapper.optimizer.lr=1e30', ))
    assert 'start it again without --resume, which would go on from round_4.pth of an earlier run' in sentence
    assert before.items() <= states(run).items()
    go_on(run, rounds=5)  # the earlier run, whose clients have kept what they had
    assert 'resumed epoch: 4' in log_of(run)
    killed(run / 'config.py', 2, '--work-dir', run, options=(
        'optim_wrapper.optimizer.lr=0.05', 'train_cfg.max_rounds=4'))
    go_on(run, rounds=4)  # and not from round 5 of the other one
    assert 'resumed epoch: 2' in log_of(run)
    assert_same_bits(weights_of(finished / 'round_4.pth'), weights_of(run / 'round_4.pth'))
    assert len({path.name for path in run.glob('clients*')}) == 1


# --- settings that differ ---------------------------------------------------
def test_settings_that_differ_are_listed(run):
    go_on(run, rounds=5, options=(
        'optim_wrapper.optimizer.lr=0.5', 'federated.clients_per_round=3', 'randomness.seed=8',
        'federated.algorithm.alpha=0.3', 'param_scheduler.0.power=2', 'train_dataloader.batch_size=3',
        'train_dataloader.num_workers=0'))
    log = log_of(run)
    lines = [line.split('--resume: ')[1] for line in log.splitlines() if '--resume: ' in line]
    assert sorted(lines) == sorted([
        'optim_wrapper.optimizer.lr was 0.05 and is now 0.5, which has no effect: the rates of the checkpoint go on.',
        'federated.clients_per_round was 2 and is now 3, which takes effect.',
        'federated.algorithm.alpha was not given and is now 0.3, which takes effect.',
        'train_dataloader.batch_size was 2 and is now 3, which takes effect.',
        'randomness.seed was 5 and is now 8, which has no effect: the seed of the checkpoint goes on.',
        'param_scheduler.0.power was 0.9 and is now 2, which has no effect: the schedule of the checkpoint goes on.'])
    rounds = [json.loads(line) for line in
              (max(run.glob('*/vis_data'), key=lambda path: path.stat().st_mtime_ns) / 'rounds.json').open()]
    assert [len(line['cohort']) for line in rounds] == [3]


def test_another_seed_has_no_effect(tiny_data, tmp_path, finished, run):
    """MMEngine took the checkpoint's in part: cohorts and methods had the other one."""
    (run / 'round_4.pth').unlink()
    go_on(run, options=('randomness.seed=8', ))
    assert_same_bits(weights_of(finished / 'round_4.pth'), weights_of(run / 'round_4.pth'))


@pytest.mark.parametrize('changes, sentence', [
    ({'optim_wrapper.optimizer': dict(_delete_=True, type='Adam', lr=0.05)}, 'optim_wrapper.optimizer was SGD when'),
    ({'param_scheduler': [dict(type='CosineAnnealingLR', T_max=4, by_epoch=True)]},
     'is now CosineAnnealingLR, which cannot go on from'),
    ({'param_scheduler': []}, 'param_scheduler was PolyLR when')])
def test_an_optimizer_or_schedule_of_another_type_is_refused(run, changes, sentence):
    before = states(run)
    cfg = Config.fromfile(run / 'config.py')
    cfg.merge_from_dict(changes)
    cfg.dump(run / 'changed.py')
    assert sentence in refusal(run / 'changed.py', '--work-dir', run, '--resume')
    assert states(run) == before


@pytest.mark.parametrize('schedule, sentence', [
    (dict(type='PolyLR', eta_min=1e-4, end=1, by_epoch=True), None),
    (dict(type='PolyLR', eta_min=1e-4, end=2, by_epoch=True), 'param_scheduler.0 (PolyLR) ends after round 2, so '
     'the rate stays at its last value from there to round 4'),
    (dict(type='CosineAnnealingLR', T_max=2, end=9, by_epoch=True), 'param_scheduler.0 (CosineAnnealingLR) has '
     'T_max=2, so the rate rises again after round 2'),
    (dict(type='MultiStepLR', milestones=[1, 3], by_epoch=True), 'param_scheduler.0 (MultiStepLR) ends after round 2, '
     'so the rate stays at its last value from there to round 4')],
    ids=['warm-up', 'poly', 'cosine', 'steps'])
def test_a_schedule_that_was_made_for_fewer_rounds(tiny_data, tmp_path, schedule, sentence):
    path = config(tiny_data, tmp_path, param_scheduler=[schedule], **{'train_cfg.max_rounds': 2})
    train(path)
    killed(path, 2, '--resume', options=('train_cfg.max_rounds=4', ))
    lines = [line for line in log_of(tmp_path).splitlines() if '--resume: ' in line]
    assert [line.split('--resume: ')[1] for line in lines] == ([f'{sentence}.'] if sentence else [])


@pytest.mark.parametrize('option', ['save_optimizer', 'save_param_scheduler'])
def test_rates_are_saved_whatever_the_hook_says(tiny_data, tmp_path, option):
    path = config(tiny_data, tmp_path / 'whole', param_scheduler=[dict(type='MultiStepLR', milestones=[1, 3])], **{
        f'default_hooks.checkpoint.{option}': False})
    train(path)
    killed(path, 2, '--work-dir', tmp_path / 'parts')
    train(path, '--work-dir', tmp_path / 'parts', '--resume')
    assert_same_bits(weights_of(tmp_path / 'whole' / 'round_4.pth'), weights_of(tmp_path / 'parts' / 'round_4.pth'))
    content = torch.load(tmp_path / 'parts' / 'round_2.pth', weights_only=True)
    del content['optimizer']  # as before this was so
    torch.save(content, tmp_path / 'old.pth')
    assert 'does not hold the rates that its schedule had reached' in refusal(path, '--resume', tmp_path / 'old.pth')


# --- an end before the end --------------------------------------------------
@pytest.mark.parametrize('number, code, place, round', [
    (signal.SIGTERM, 143, 'after_client', 2), (signal.SIGINT, 130, 'before_client', 2),
    (signal.SIGTERM, 143, 'after_val_iter', 2)])
def test_a_signal_loses_no_finished_round(tiny_data, tmp_path, finished, capsys, number, code, place, round):
    changes = {'federated.algorithm': dict(type='FedDyn'), 'default_hooks.checkpoint.interval': 10,
               'train_cfg.val_interval': 2, 'default_hooks.checkpoint.save_best': None}
    path = config(tiny_data, tmp_path, custom_hooks=[
        dict(type='SignalHook', round=round, number=int(number), place=place)], **changes)
    with pytest.raises(SystemExit) as stop:
        train(path)
    assert stop.value.code == code
    assert 'fed_train: stopped; --resume goes on from round_2.pth with round 3' in capsys.readouterr().err
    assert sorted(file.name for file in tmp_path.glob('round_*.pth')) == ['round_2.pth']
    assert signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)
    train(config(tiny_data, tmp_path, **changes), '--resume')
    assert 'resumed epoch: 2' in log_of(tmp_path)
    assert_same_bits(weights_of(finished / 'round_4.pth'), weights_of(tmp_path / 'round_4.pth'))


def test_a_signal_in_the_first_round_promises_nothing(tiny_data, tmp_path, capsys):
    path = config(tiny_data, tmp_path, custom_hooks=[dict(type='SignalHook', round=0)])
    with pytest.raises(SystemExit) as stop:
        train(path)
    assert stop.value.code == 143 and not list(tmp_path.glob('*.pth'))
    assert 'fed_train: stopped; no checkpoint was written: start again without --resume' in capsys.readouterr().err


def test_a_signal_with_averaged_weights(tiny_data, tmp_path):
    """EMAHook exchanges the model's weights for the time of an evaluation."""
    changes = {'default_hooks.checkpoint.interval': 10, 'train_cfg.val_interval': 2, 'train_cfg.max_rounds': 3,
               'default_hooks.checkpoint.save_best': None}
    ema = dict(type='EMAHook', momentum=0.25)
    train(config(tiny_data, tmp_path / 'whole', custom_hooks=[ema], **changes))
    path = config(tiny_data, tmp_path / 'parts', custom_hooks=[
        ema, dict(type='SignalHook', round=2, place='after_val_iter')], **changes)
    with pytest.raises(SystemExit):
        train(path)
    train(config(tiny_data, tmp_path / 'parts', custom_hooks=[ema], **changes), '--resume')
    whole, parts = (torch.load(tmp_path / name / 'round_3.pth', weights_only=True) for name in ('whole', 'parts'))
    for key in ('state_dict', 'ema_state_dict'):
        assert_same_bits(whole[key], parts[key])


def test_a_round_that_fails_loses_no_finished_round(tiny_data, tmp_path):
    @HOOKS.register_module(force=True)
    class SpoilHook(Hook):

        def before_client(self, runner, client):
            if runner.epoch == 2:
                raise OSError(errno.ENOSPC, 'No space left on device', '/data/cache')

    path = config(tiny_data, tmp_path, custom_hooks=[dict(type='SpoilHook')], **{
        'default_hooks.checkpoint.interval': 10})
    assert refusal(path) == 'fed_train: No space left on device (/data/cache): free some space and start again'
    assert (tmp_path / 'round_2.pth').is_file()


def test_the_last_round_of_an_early_stop_is_saved(tiny_data, tmp_path):
    train(config(tiny_data, tmp_path, custom_hooks=[
        dict(type='EarlyStoppingHook', monitor='mIoU', stopping_threshold=-1.0)], **{
            'default_hooks.checkpoint.interval': 10, 'train_cfg.val_interval': 2,
            'default_hooks.checkpoint.save_best': None}))
    assert [file.name for file in tmp_path.glob('round_*.pth')] == ['round_2.pth']
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'round_2.pth')


# --- disks ------------------------------------------------------------------
def full_disk(monkeypatch, name: str) -> None:
    """Files of that name get half of what is written to them."""
    write = Path.write_bytes

    def fail(path, content):
        if name not in path.name:
            return write(path, content)
        write(path, bytes(content)[:len(content) // 2])
        raise OSError(errno.ENOSPC, 'No space left on device', str(path))

    monkeypatch.setattr(Path, 'write_bytes', fail)


@pytest.mark.parametrize('name', ['round_2.pth', 'best_mIoU_round_2.pth'])
def test_a_full_disk_leaves_the_checkpoint_before(tiny_data, tmp_path, monkeypatch, name):
    path = config(tiny_data, tmp_path, **{
        'default_hooks.checkpoint.max_keep_ckpts': 1, 'train_cfg.val_interval': 1 if 'best' in name else 99})
    full_disk(monkeypatch, f'{name}.')
    if 'best' in name:  # it is better than the first one
        monkeypatch.setattr('mmseg.evaluation.IoUMetric.compute_metrics',
                            lambda self, results: dict(mIoU=float(len(list(tmp_path.glob('best*'))))))
    sentence = refusal(path)
    assert sentence.startswith('fed_train: No space left on device (') and sentence.endswith(
        ': free some space and start again')
    left = sorted(file.name for file in tmp_path.rglob('*.pth*') if file.parent == tmp_path)
    assert left == (['best_mIoU_round_1.pth', 'round_2.pth'] if 'best' in name else ['round_1.pth'])
    monkeypatch.undo()
    train(path, '--resume')
    assert sorted(file.name for file in tmp_path.glob('round_*.pth')) == ['round_4.pth']


@pytest.mark.parametrize('place', ['.', 'below/it'])
def test_a_file_in_the_place_of_the_work_dir(tiny_data, tmp_path, place):
    path = config(tiny_data, tmp_path)
    (tmp_path / 'file').write_text('mine')
    sentence = refusal(path, '--work-dir', tmp_path / 'file' / place)
    assert 'remove the file or name another folder and start again' in sentence
    assert (tmp_path / 'file').read_text() == 'mine'
