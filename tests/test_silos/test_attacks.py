"""What a hostile or broken server or site can do to the others: nothing beyond its own part."""
import argparse
import json
import os
import signal
import threading

import pytest
import torch
from mmengine.config import Config
from safetensors.torch import load, save

from fedseg_mm.engine.backends import NVFlareBackend
from fedseg_mm.errors import FedSegError
from fedseg_mm.silos import log_watch
from fedseg_mm.silos.desk import Desk
from fedseg_mm.silos.site_config import SiteConfig
from fedseg_mm.silos.site_link import NoWay, SiteAway, SiteLink
from fedseg_mm.silos.site_trainer import SiteTrainer
from fedseg_mm.silos.spool import Spool, digest_of
from tests.conftest import assert_same_bits, weights_of
from tests.test_silos.sites import DirectJob, across_sites, make_kits, reasons, rounds_of, train

SCAFFOLD = {'federated.algorithm': dict(type='SCAFFOLD')}
TOP_K = {'federated.processors': [dict(type='TopKCompression', ratio=0.1)]}
RARE = {'default_hooks.checkpoint.interval': 10}


# --- a hostile server -------------------------------------------------------
@pytest.mark.parametrize('name', ['../../elsewhere', '/tmp/elsewhere', '..', '', 'a/b', None, 7, 'x' * 65, 'a\n'])
def test_a_run_is_no_path(name, kits, tmp_path):
    from fedseg_mm.version import __version__
    kit = kits / 'sites' / 'north'
    trainer = SiteTrainer('north', SiteConfig.read(kit / 'site.yaml'), kit / 'run' / 'runs')
    with pytest.raises(FedSegError, match='which is no name of a folder here'):
        trainer.setup(dict(version=__version__, run=name, client=0, clients=2, config={}))
    assert not (kit / 'run').exists()


def test_messages_do_not_fill_a_sites_disk(tmp_path):
    spool = Spool(tmp_path)
    for total in (1 << 60, float('inf')):
        with pytest.raises(FedSegError, match='does not fit on the disk'):
            spool.put(digest_of(b'x'), 0, b'piece', total)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('args', [{}, dict(round='x'), dict(round=None)])
def test_a_task_that_makes_no_sense_ends_no_trainer(args, kits):
    job = DirectJob(kits)
    desk = job.desks['north']
    desk.setup, desk._is_set_up = 'run', True
    reply, _ = job.ask('north', dict(op='work', kind='train', args=args, inputs={}, setup='run'))
    assert desk.answer(dict(op='look', task=reply['task']), b'')[0]['state'] == 'failed'


# --- what is interrupted ----------------------------------------------------
def test_a_message_whose_last_piece_came_before_the_end_is_whole(tmp_path):
    spool, content = Spool(tmp_path), b'whole'
    (tmp_path / f'{digest_of(content)}.part').write_bytes(content)
    assert spool.arrived(digest_of(content), 5) == 5 and spool.read(digest_of(content)) == content
    other = digest_of(b'other')
    (tmp_path / f'{other}.part').write_bytes(b'zeros')  # as a machine leaves it that loses power
    assert spool.arrived(other, 5) == 0 and spool.put(other, 0, b'other', 5) == 5 and spool.has(other)


def test_a_trainer_that_ends_between_checkpoints_trains_the_same(run, data, tmp_path):
    run('whole', **SCAFFOLD, **RARE)
    other, ended = make_kits(tmp_path / 'other_kits', data), []
    job = DirectJob(other)

    def end(site, head, reply):
        if head['op'] == 'work' and head['kind'] == 'train' and head['args']['round'] == 2 and site not in ended:
            ended.append(site)
            job.begin(other, site)
            raise NoWay('its trainer is not up')

    job.lose_answer = end
    run('ended', job, **SCAFFOLD, **RARE)
    assert len(ended) == 2 and not reasons(tmp_path / 'ended')
    assert_same_bits(weights_of(tmp_path / 'whole' / 'round_3.pth'), weights_of(tmp_path / 'ended' / 'round_3.pth'))


def test_an_update_that_the_server_never_got_locks_nobody_out(run, kits, tmp_path):
    job = DirectJob(kits)

    def lose(site, head, reply):
        if site == 'south' and head.get('args', {}).get('round') == 1 and head['kind'] == 'train':
            raise NoWay('the site does not answer')

    job.lose_answer = lose
    run(job=job, **SCAFFOLD, **RARE, **{'federated.backend.site_timeout': 0.3})
    assert list(reasons(tmp_path / 'work')) == [2]


def test_an_older_checkpoint_removes_nothing_that_a_later_one_needs(run, data, kits, tmp_path, monkeypatch):
    changes = {**SCAFFOLD, 'train_cfg.max_rounds': 4, 'train_cfg.val_interval': 100}
    run(**changes)
    states = sorted((kits / 'sites' / 'north').glob('run/runs/*/clients/0/*.pth'))
    cfg = across_sites(data, kits, tmp_path / 'work', monkeypatch, DirectJob(kits), **changes)
    cfg.resume, cfg.load_from = True, str(tmp_path / 'work' / 'round_1.pth')
    with pytest.raises(FedSegError, match='site north cannot take part: north does not keep the state of round 1'):
        train(cfg)
    assert sorted((kits / 'sites' / 'north').glob('run/runs/*/clients/0/*.pth')) == states


def test_what_has_failed_is_tried_anew_and_what_is_asked_again_is_not(tmp_path):
    desk, begun = Desk(Spool(tmp_path), 'north'), []
    desk.begin_anew = lambda: begun.append(1)
    setup = dict(op='work', kind='setup', args={}, inputs={}, attempt='1')
    name = desk.answer(setup, b'')[0]['task']
    desk.finish(desk.tasks.get(), error='the folder is away')
    assert desk.answer(setup, b'')[0]['error'] == 'the folder is away' and not begun
    train = dict(op='work', kind='train', args={}, inputs={}, setup=name)
    assert desk.answer(train, b'')[0]['state'] == 'not set up'
    assert desk.answer(dict(setup, attempt='2'), b'')[0]['state'] == 'again' and begun


def test_a_step_that_fails_leaves_no_gradients_to_the_next_round(run, data, tmp_path, monkeypatch):
    from fedseg_mm.engine.local_trainer import LocalTrainer
    whole, left = LocalTrainer.fit, []

    def fit(self, client, broadcast, *arguments):
        left.append([p for p in self.model.parameters() if p.grad is not None and p.grad.any()])
        if broadcast.round == 0 and client == 0:
            for p in self.model.parameters():
                p.grad = torch.ones_like(p)
            raise RuntimeError('out of memory')
        return whole(self, client, broadcast, *arguments)

    monkeypatch.setattr(LocalTrainer, 'fit', fit)
    run()
    assert not any(left) and list(reasons(tmp_path / 'work')) == [1]


# --- a hostile site ---------------------------------------------------------
def _with_fields(content: bytes, change) -> bytes:
    head = json.loads(json.loads(content[8:8 + int.from_bytes(content[:8], 'little')])['__metadata__']['head'])
    change(head['fields'])
    return save(load(content), dict(head=json.dumps(head)))


def _with_tensors(content: bytes, change) -> bytes:
    tensors = load(content)
    head = json.loads(content[8:8 + int.from_bytes(content[:8], 'little')])['__metadata__']
    change(tensors)
    return save(tensors, head)


def _first(tensors: dict, ending: str = '') -> str:
    return next(name for name in sorted(tensors) if name.endswith(ending))


FIELDS = {
    'client as a float': lambda fields: fields.update(client=1.0),
    'steps': lambda fields: fields.update(num_steps='many'),
    'metrics of a list': lambda fields: fields.update(metrics=[1]),
    'a metric too large': lambda fields: fields.update(metrics=dict(loss=10**400)),
    'a metric called used': lambda fields: fields.update(metrics=dict(loss=1.0, used=1, reason=2, client=0)),
    'unshared': lambda fields: fields.update(unshared=dict(x=1)),
    'seconds': lambda fields: fields.update(seconds='x'),
    'no processing': lambda fields: fields.update(processed=False),
    'processed': lambda fields: fields.update(processed=True),
    'words without end': lambda fields: fields.update(metrics=dict(loss=1.0, x='x' * (17 << 20))),
    'finite': lambda fields: fields.update(is_finite=[1]),
}
TENSORS = {
    'extras of another shape': lambda tensors: tensors.update({_first(
        {n for n in tensors if n.startswith('extras/')} or tensors): torch.zeros(3)}),
    'no extras': lambda tensors: [tensors.pop(name) for name in list(tensors) if name.startswith('extras/')],
    'float8': lambda tensors: tensors.update({'extras/x': torch.zeros(3).to(torch.float8_e4m3fn)}),
    'positions out of range': lambda tensors: [tensor.fill_(10**9) for name, tensor in tensors.items()
                                               if name.endswith('/indices')],
    'a part is missing': lambda tensors: [tensors.pop(name) for name in list(tensors) if name.endswith('/indices')],
    'weights of one number': lambda tensors: [tensors.update({name: torch.zeros(1, dtype=tensor.dtype)})
                                              for name, tensor in list(tensors.items()) if name.startswith('weights/')],
}


@pytest.mark.parametrize('changes', [SCAFFOLD, TOP_K], ids=['SCAFFOLD', 'TopK'])
def test_no_update_ends_the_training(changes, run, tmp_path, monkeypatch):
    kinds = [(_with_fields, change) for change in FIELDS.values()] + [
        (_with_tensors, change) for change in TENSORS.values()]
    whole = SiteTrainer.train

    def spoilt(self, weights, rest, *arguments):
        content, kept = whole(self, weights, rest, *arguments)
        if self.name == 'south':
            kind, change = kinds[json.loads(json.loads(rest[8:8 + int.from_bytes(rest[:8], 'little')])['__metadata__'][
                'head'])['fields']['round']]
            content = kind(content, change)
        return content, kept

    monkeypatch.setattr(SiteTrainer, 'train', spoilt)
    run(**changes, **RARE, **{'train_cfg.max_rounds': len(kinds), 'train_cfg.val_interval': 100})
    lines = rounds_of(tmp_path / 'work')
    assert len(lines) == len(kinds)
    for line in lines:
        north, south = sorted(line['clients'], key=lambda client: client['name'])
        assert north['used'] and north['name'] == 'north' and south['name'] == 'south' and south['client'] == 1
        assert set(south) >= {'reason'} or isinstance(south['images'], int)


def _link(answer) -> SiteLink:
    class Job:
        def ask(self, site, head, body=b'', timeout=30.0):
            return answer(head)

    return SiteLink('north', Job(), 5.0)


def test_a_site_cannot_have_the_server_keep_more_than_an_update():
    link = _link(lambda head: (dict(state='done', task='x', output='a' * 64, size=1 << 50, told={}), b'x' * (1 << 20)))
    with pytest.raises(FedSegError, match='there is no use for more'):
        link.do('train', {}, dict(weights=b'x'))


@pytest.mark.parametrize('state', ['missing', 'running', 'busy', 'again', 'not set up', 'nonsense'])
def test_a_site_that_never_gets_on_is_given_up(state):
    link = _link(lambda head: (dict(state=state, task='x', missing=[digest_of(b'x')], boot='1', arrived=0), b''))
    link.prepare({}, dict(run=b'x'))
    with pytest.raises(SiteAway, match='took longer'):
        link.do('train', {}, dict(weights=b'x'), limit=0.3)
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    with pytest.raises(SiteAway, match='given up'):
        link.do('train', {}, dict(weights=b'x'), stop=stop)


def test_a_sites_words_are_one_line_without_control_characters():
    link = _link(lambda head: (dict(refused='no\x1b[2J\r\nRound 9: all is well' + 'x' * 9999), b''))
    with pytest.raises(FedSegError) as error:
        link.do('train', {}, dict(weights=b'x'))
    assert str(error.value).isprintable() and len(str(error.value)) < 1100


@pytest.mark.parametrize('told', [[], dict(matrix=[[1 << 62] * 4] * 4), dict(matrix=10**400)])
def test_an_evaluation_without_any_site_does_not_end_the_training(told, run, tmp_path, monkeypatch):
    monkeypatch.setattr(SiteTrainer, 'evaluate', lambda *_: told)
    run()
    log = next((tmp_path / 'work').glob('*/*.log')).read_text()
    assert log.count('No site has evaluated the global model') == 3 and len(rounds_of(tmp_path / 'work')) == 3


def test_an_evaluation_after_going_back_uses_what_the_server_knows_of(run, data, kits, tmp_path, monkeypatch):
    fedbn = {'federated.algorithm': dict(type='FedBN')}
    run(**{**fedbn, 'train_cfg.max_rounds': 2})
    asked, whole = [], SiteTrainer.evaluate
    monkeypatch.setattr(SiteTrainer, 'evaluate', lambda self, weights, unshared, state: asked.append(state) or whole(
        self, weights, unshared, state))
    cfg = across_sites(data, kits, tmp_path / 'work', monkeypatch, DirectJob(kits), **fedbn)
    cfg.resume, cfg.load_from = True, str(tmp_path / 'work' / 'round_1.pth')
    train(cfg)
    assert asked == [1, 1, 2, 2, 3, 3]


def test_a_site_that_says_it_has_endless_images_is_refused(run, monkeypatch):
    whole = SiteTrainer._describe
    monkeypatch.setattr(SiteTrainer, '_describe', lambda self, classes: dict(whole(self, classes), images=1 << 31))
    with pytest.raises(FedSegError, match='the site north cannot take part: north says of itself what cannot be'):
        run()


def test_kept_is_no_dict(run, monkeypatch, tmp_path):
    whole = NVFlareBackend._train_one

    def broken(self, client, *arguments):
        if client == 1:
            raise RecursionError('nested')
        return whole(self, client, *arguments)

    monkeypatch.setattr(NVFlareBackend, '_train_one', broken)
    run()
    assert set(reasons(tmp_path / 'work')) == {1, 2, 3}


def test_a_site_where_no_job_starts_does_not_interrupt_the_others_for_ever(tmp_path, monkeypatch):
    pytest.importorskip('nvflare')
    from fedseg_mm.silos import job
    said, now, renewed = [], [0.0], []
    relay = job.RelayJob(tmp_path, tmp_path, said.append)
    relay.job_id = 'one'

    class Session:
        def get_client_job_status(self):
            return [dict(client_name='north', job_id='one'), dict(client_name='south', job_id=None)]

    monkeypatch.setattr(relay, '_admin', Session)
    monkeypatch.setattr(job.time, 'monotonic', lambda: now[0])
    for second in range(0, 3600, 5):
        now[0] = float(second)
        relay._look_for_others()
        renewed += [second] if relay._renew.is_set() else []
        relay._renew.clear()
    assert len(renewed) < 14 and renewed[0] == 0 and said[0] == 'south is connected, and taken in.'


def test_a_training_goes_on_from_its_checkpoint_while_a_site_is_away(run, data, kits, tmp_path, monkeypatch):
    run(**{**SCAFFOLD, 'train_cfg.max_rounds': 2})
    job, back = DirectJob(kits), []

    def lose(site, head):
        back.extend([1] * (site == 'north' and head.get('args', {}).get('round') == 3))
        if site == 'south' and not back:
            raise NoWay('the site does not answer')

    job.lose = lose
    cfg = across_sites(data, kits, tmp_path / 'work', monkeypatch, job, **{
        **SCAFFOLD, 'federated.backend.site_timeout': 0.2, 'train_cfg.max_rounds': 5, 'train_cfg.val_interval': 5})
    cfg.resume = True
    train(cfg)
    found = reasons(tmp_path / 'work')
    assert found == {3: 'south is away', 4: 'south is away'}


def test_nothing_is_left_of_a_training_that_was_killed(run, kits):
    left = kits / 'server' / 'run' / 'updates_x'
    left.mkdir()
    (left / '0').write_bytes(b'update')
    run(**{'train_cfg.max_rounds': 1})
    assert not list((kits / 'server' / 'run').glob('updates_*'))


# --- the training's keeper --------------------------------------------------
class Child:
    """A training that ends as a test says."""

    def __init__(self, codes: list, seen: list, during=lambda: None) -> None:
        self.codes, self.seen, self.during = codes, seen, during

    def __call__(self, command, **_):
        self.seen.append(command)
        return self

    def wait(self) -> int:
        self.during()
        return self.codes.pop(0)

    def send_signal(self, number: int) -> None:
        self.seen.append(number)


@pytest.fixture
def train_with(monkeypatch):
    from fedseg_mm.cli import silo
    from fedseg_mm.silos import keep_up  # noqa: F401

    def start(*arguments, **named):
        seen: list = []
        monkeypatch.setattr(silo.subprocess, 'Popen', Child(*arguments, seen=seen, **named))
        monkeypatch.setattr(silo.time, 'sleep', lambda _: None)
        ticks = iter(range(0, 10**6, 1000))
        monkeypatch.setattr(silo.time, 'monotonic', lambda: next(ticks))
        return silo.keep_training(['silo', 'train', 'x.py']), seen

    return start


def test_a_training_that_is_killed_goes_on_and_one_that_ends_does_not(train_with):
    code, seen = train_with([-9, 3])
    assert code == 3 and '--again' not in seen[0] and '--again' in seen[1] and len(seen) == 2


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_training_that_is_stopped_too_young_to_end_by_itself_is_not_started_again(number, train_with):
    code, seen = train_with([-number], during=lambda: os.kill(os.getpid(), number))
    assert code == 128 + number and len(seen) == (2 if number == signal.SIGTERM else 1)


def test_only_a_checkpoint_of_the_same_training_is_gone_on_from(tmp_path):
    from fedseg_mm.cli.silo import _has_saved
    cfg = Config(dict(work_dir=str(tmp_path)))
    assert not _has_saved(cfg, 0.0)
    torch.save(dict(meta=dict(epoch=50)), tmp_path / 'epoch_50.pth')
    os.utime(tmp_path / 'epoch_50.pth', (1000, 1000))
    assert not _has_saved(cfg, 2000.0) and _has_saved(cfg, 500.0)


def test_two_trainings_at_once_are_refused(kits):
    from fedseg_mm.cli import silo
    with silo._alone(kits / 'server', silo.TRAINING, ''), pytest.raises(
            FedSegError, match=f'the process {os.getpid()} trains over'):
        silo._train(argparse.Namespace(once=False, kits=kits))
    assert silo._holder(kits / 'server', silo.TRAINING) is None


def test_a_log_is_read_on_after_it_was_emptied_or_holds_a_line_without_end(tmp_path):
    log = tmp_path / 'trainer.log'
    log.write_bytes(b'x' * 5000)
    watch = log_watch.LogWatch(log, log_watch.TRAINER)
    log.write_text('2026-01-01 00:00:00,000 ready\n')
    assert watch.news() == ['ready']
    with log.open('ab') as file:
        file.write(b'x' * (2 * log_watch.MOST) + b'\n2026-01-01 00:00:00,000 again\n')
    assert [sentence for _ in range(3) for sentence in watch.news()] == ['again']


# --- messages between sites -------------------------------------------------
@pytest.mark.parametrize('origin', ['south', 'south.job', 'servers', 'admin', '', None])
def test_a_site_answers_nobody_but_the_server(origin, monkeypatch):
    pytest.importorskip('nvflare')
    from nvflare.fuel.f3.cellnet.core_cell import Message, MessageHeaderKey

    from fedseg_mm.silos.relay import SiteRelay
    relay, asked = SiteRelay(), []
    monkeypatch.setattr(relay, 'hand_on', asked.append)
    reply = relay.receive(Message({MessageHeaderKey.ORIGIN: origin}, 'ask'))
    assert reply.get_header(MessageHeaderKey.RETURN_CODE) == 'authentication_error' and not asked
    reply = relay.receive(Message({MessageHeaderKey.ORIGIN: 'server.job'}, 'ask'))
    assert reply.get_header(MessageHeaderKey.RETURN_CODE) == 'ok' and asked == ['ask']
