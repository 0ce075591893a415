"""What goes wrong between a server and its sites: a sentence each, and nothing is lost."""
import errno
import random
import re
import shutil
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

import fedseg_mm.silos.site_trainer as site_trainer
from fedseg_mm.errors import FedSegError
from fedseg_mm.silos.site_link import MOST_ENDS, NoWay
from fedseg_mm.silos.site_trainer import SiteTrainer
from fedseg_mm.structures import ClientUpdate
from tests.conftest import assert_same_bits, weights_of
from tests.test_silos.sites import SITES, DirectJob, across_sites, make_kits, make_sites, reasons, rounds_of, train

SCAFFOLD = {'federated.algorithm': dict(type='SCAFFOLD')}


def test_lost_questions_and_answers_change_nothing(run, kits, data, tmp_path):
    run('whole', **SCAFFOLD)
    lost, rng = [], random.Random(3)

    def lose(site, head, *_):
        if rng.random() < 0.3:
            lost.append(head['op'])
            raise NoWay('lost on the way')

    job = DirectJob(make_kits(tmp_path / 'other_kits', data))
    job.lose, job.lose_answer = lose, lose
    run('lossy', job, **SCAFFOLD)
    assert {'work', 'get', 'put'} <= set(lost)
    assert_same_bits(weights_of(tmp_path / 'whole' / 'round_3.pth'), weights_of(tmp_path / 'lossy' / 'round_3.pth'))
    assert not reasons(tmp_path / 'lossy')


def test_a_trainer_that_ends_is_set_up_again_and_trains_the_same(run, kits, data, tmp_path):
    run('whole', **SCAFFOLD)
    other = make_kits(tmp_path / 'other_kits', data)
    job = DirectJob(other)
    ended = []

    def end(site, head, reply):
        # after it has trained, and kept its state, and before anybody hears of it
        if head['op'] == 'work' and head['kind'] == 'train' and head['args']['round'] == 1 and site not in ended:
            ended.append(site)
            job.begin(other, site)
            raise NoWay('its trainer is not up')

    job.lose_answer = end
    run('ended', job, **SCAFFOLD)
    assert sorted(ended) == sorted(SITES)
    assert_same_bits(weights_of(tmp_path / 'whole' / 'round_3.pth'), weights_of(tmp_path / 'ended' / 'round_3.pth'))


def test_a_trainer_that_always_ends_costs_its_update(run, kits, tmp_path):
    job = DirectJob(kits)

    def end(site, head, reply):
        if site == 'north' and head['op'] == 'work' and head['kind'] == 'train' and 'task' in reply:
            job.begin(kits, site)
            reply.update(state='running', boot=job.desks[site].boot)

    job.lose_answer = end
    run(job=job, **{'train_cfg.max_rounds': 1})
    assert set(reasons(tmp_path / 'work')) == {1}
    assert f'the trainer of north ended {MOST_ENDS} times in the middle of one task' in reasons(tmp_path / 'work')[1]


def test_two_machines_of_one_name_are_noticed(run, kits, tmp_path):
    job = DirectJob(kits)
    first = job.desks['north'].boot

    def other(site, head, reply):
        if site == 'north' and 'boot' in reply and head.get('args', {}).get('round') == 1:
            job.begin(kits, 'north')
            reply['boot'] = job.desks['north'].boot
        elif site == 'north' and head['op'] == 'look':
            reply['boot'] = first

    job.lose_answer = other
    run(job=job)
    assert any(reason.startswith('two machines answer as north: ') for reason in reasons(tmp_path / 'work').values())


def test_a_site_that_is_away_is_left_out_and_taken_in_again(run, kits, tmp_path):
    job, asked = DirectJob(kits), []

    def lose(site, head):
        round = head.get('args', {}).get('round')
        asked.append((site, round))
        away = ('south', 1) in asked and ('south', 2) not in asked and not (round == 0)
        if site == 'south' and round == 1 or (site == 'south' and head['op'] == 'hello' and away and len(
                [one for one in asked if one == ('south', None)]) < 3):
            raise NoWay('the site does not answer')

    job.lose = lose
    run(job=job, **{'federated.backend.site_timeout': 2.0})
    assert reasons(tmp_path / 'work') == {2: 'south was not to be reached for 2 s: the site does not answer'}
    assert len(rounds_of(tmp_path / 'work')) == 3


def test_a_run_that_was_interrupted_goes_on_with_what_sites_keep(run, data, kits, tmp_path, monkeypatch):
    run('whole', **SCAFFOLD)
    other = make_kits(tmp_path / 'other_kits', data)
    run('resumed', DirectJob(other), **{**SCAFFOLD, 'train_cfg.max_rounds': 2})
    cfg = across_sites(data, other, tmp_path / 'resumed', monkeypatch, DirectJob(other), **SCAFFOLD)
    cfg.resume = True
    train(cfg)
    assert_same_bits(weights_of(tmp_path / 'whole' / 'round_3.pth'), weights_of(tmp_path / 'resumed' / 'round_3.pth'))
    for file in (other / 'sites' / 'north').glob('run/runs/*/clients/*/*.pth'):
        file.unlink()
    cfg = across_sites(data, other, tmp_path / 'resumed', monkeypatch, DirectJob(other),
                       **{**SCAFFOLD, 'train_cfg.max_rounds': 4})
    cfg.resume = True
    train(cfg)
    assert 'north keeps the state of round None, but the server goes on from round 3' in reasons(
        tmp_path / 'resumed')[4]


def test_runs_that_go_on_from_one_checkpoint_share_nothing_that_sites_keep(run, kits, data, tmp_path, monkeypatch):
    """In a copy of its work dir, in another one, and in its own from an earlier round."""
    changes = {**SCAFFOLD, 'train_cfg.val_interval': 9, 'federated.local_epochs': 1}
    first, copy = tmp_path / 'first', tmp_path / 'copy'
    run('first', DirectJob(kits), **{**changes, 'train_cfg.max_rounds': 2})
    shutil.copytree(first, copy)

    def go_on(work_dir, checkpoint, name='round', **other):
        cfg = across_sites(data, kits, work_dir, monkeypatch, DirectJob(kits), **{**changes, **other})
        cfg.resume, cfg.load_from = True, str(checkpoint)
        cfg.default_hooks.checkpoint.filename_tmpl = f'{name}_{{}}.pth'
        train(cfg)

    go_on(copy, copy / 'round_2.pth')
    for work_dir in (tmp_path / 'second', first):
        go_on(work_dir, first / 'round_1.pth', 'other', **{'train_cfg.max_rounds': 2, 'federated.local_epochs': 2})
    go_on(first, first / 'round_2.pth')
    assert_same_bits(weights_of(copy / 'round_3.pth'), weights_of(first / 'round_3.pth'))
    names = [torch.load(file, weights_only=True)['federated']['silos']['run'] for file in (
        first / 'round_2.pth', copy / 'round_3.pth', tmp_path / 'second' / 'other_2.pth', first / 'other_2.pth')]
    assert len(set(names)) == 4


@HOOKS.register_module()
class FreezesBackbone(Hook):
    """A hook that is neither OpenMMLab's nor ours."""


def test_hooks_that_sites_do_not_follow_are_named(run, tmp_path):
    run(**{'train_cfg.max_rounds': 1, 'custom_hooks': [dict(type='ChannelsLastHook'), dict(type='FreezesBackbone'),
                                                       dict(type='EMAHook')]})
    log = next((tmp_path / 'work').glob('*/*.log')).read_text()
    assert 'custom_hooks: FreezesBackbone runs at the server alone, and sites train without it.' in log


def test_a_damaged_image_is_named_and_costs_its_sites_update(data, tmp_path, monkeypatch):
    spoilt = tmp_path / 'data'
    make_sites(spoilt)
    kits = make_kits(tmp_path / 'kits', spoilt)
    job = DirectJob(kits)

    def spoil(site, head):
        if head['op'] == 'work' and head['kind'] == 'train':
            (spoilt / 'north' / 'img_dir' / 'train' / '000.png').write_bytes(b'no image')

    job.lose = spoil
    train(across_sites(spoilt, kits, tmp_path / 'work', monkeypatch, job))
    assert re.search('the train pipeline fails on the image .*000.png', reasons(tmp_path / 'work')[1])


def test_a_slow_site_is_left_out_of_the_round(run, tmp_path, monkeypatch):
    whole = SiteTrainer.train

    def slow(self, *arguments, **named):
        arguments = list(arguments)
        assert arguments[-1] == 100.0  # what the config says
        if self.name == 'south':
            arguments[-1] = 1e-9
        return whole(self, *arguments, **named)

    monkeypatch.setattr(SiteTrainer, 'train', slow)
    run(**{'federated.backend.client_time_limit': 100.0})
    assert re.fullmatch(r'it exceeded client_time_limit=1e-09: .* s so far', reasons(tmp_path / 'work')[1])
    assert len(rounds_of(tmp_path / 'work')) == 3


def test_a_server_without_disk_ends_with_its_rounds_saved_and_goes_on(run, data, kits, tmp_path, monkeypatch):
    run('whole', **SCAFFOLD)
    other = make_kits(tmp_path / 'other_kits', data)
    write = Path.write_bytes

    def no_space(self, content):
        if self.parent.name.startswith('updates_') and len(rounds_of(tmp_path / 'full')) == 1:
            raise OSError(errno.ENOSPC, 'No space left on device', str(self))
        return write(self, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, 'write_bytes', no_space)
        with pytest.raises(OSError, match='No space left on device'):
            run('full', DirectJob(other), **SCAFFOLD)
    cfg = across_sites(data, other, tmp_path / 'full', monkeypatch, DirectJob(other), **SCAFFOLD)
    cfg.resume = True
    train(cfg)
    assert_same_bits(weights_of(tmp_path / 'whole' / 'round_3.pth'), weights_of(tmp_path / 'full' / 'round_3.pth'))


def test_classes_that_the_federation_does_not_have_are_refused_at_the_start(data, tmp_path, monkeypatch):
    kits = make_kits(tmp_path / 'kits', data, {'south': dict(annotates=['horse'])})
    with pytest.raises(FedSegError, match='the site south cannot take part: site.yaml says that south annotates horse, '
                                          "which is not among the federation's classes sky, road, car, tree"):
        train(across_sites(data, kits, tmp_path / 'work', monkeypatch))


def test_another_version_is_refused_at_the_start(run, monkeypatch):
    monkeypatch.setattr(site_trainer, '__version__', '9.9')
    with pytest.raises(FedSegError, match='the server has fedseg_mm .*, but north has 9.9: install the same'):
        run()


def test_another_model_of_the_same_config_is_refused_at_the_start(run, monkeypatch):
    monkeypatch.setattr(site_trainer, 'layout_of', lambda tensors: '{"head.weight": ["torch.float32", [1]]}')
    with pytest.raises(FedSegError, match='north builds another model of the same config than the server'):
        run()


@pytest.mark.parametrize('spoil, sentence', [
    (lambda update: b'no message', 'the message is damaged or is not'),
    (lambda update: update.to_bytes()[:-8], 'the message is damaged or is not'),
    (lambda update: ClientUpdate(1 - update.client, update.weights, update.num_images, 1, {}).to_bytes(),
     'sends the update of client'),
    (lambda update: ClientUpdate(update.client, update.weights, 10**6, 1, {}).to_bytes(),
     'with 1000000 images, but is client . with'),
    (lambda update: ClientUpdate(update.client, dict(list(update.weights.items())[1:]), update.num_images, 1,
                                 {}).to_bytes(), 'lacks'),
    (lambda update: ClientUpdate(update.client, {name: tensor * float('nan') if tensor.is_floating_point() else tensor
                                                 for name, tensor in update.weights.items()}, update.num_images, 1,
                                 {}).to_bytes(), None)])
def test_an_update_that_cannot_be_used_costs_its_sites_part_of_the_round(spoil, sentence, run, tmp_path, monkeypatch):
    whole = SiteTrainer.train

    def spoilt(self, *arguments):
        content, kept = whole(self, *arguments)
        return (spoil(ClientUpdate.from_bytes(content)) if self.name == 'south' else content), kept

    monkeypatch.setattr(SiteTrainer, 'train', spoilt)
    run()
    assert len(rounds_of(tmp_path / 'work')) == 3
    if sentence is None:
        assert not any(client['used'] for line in rounds_of(tmp_path / 'work') for client in line['clients']
                       if client['name'] == 'south')
    else:
        assert re.search(sentence, reasons(tmp_path / 'work')[1])


@pytest.mark.parametrize('matrix', [[[1]], [[-1] * 4] * 4, [['a'] * 4] * 4, None])
def test_an_evaluation_that_makes_no_sense_is_left_out(matrix, run, tmp_path, monkeypatch):
    whole = SiteTrainer.evaluate
    monkeypatch.setattr(SiteTrainer, 'evaluate', lambda self, *arguments: dict(matrix=matrix) if (
        self.name == 'south') else whole(self, *arguments))
    run()
    log = next((tmp_path / 'work').glob('*/*.log')).read_text()
    assert 'The evaluation goes without south: ' in log and 'Sites: north mIoU' in log


@pytest.mark.parametrize('changes, sentence', [
    ({'federated.algorithm': dict(type='Centralised')}, 'Centralised is a bound without a federation'),
    ({'federated.algorithm': dict(type='LocalOnly')}, 'LocalOnly is a bound without a federation'),
    ({'federated.algorithm': dict(type='FedAvg', batch_norm='recalibrate')}, "batch_norm='recalibrate' goes through"),
    ({'federated.attacks': [dict(type='SignFlip', share=0.5)]}, 'federated.attacks is for measurements')])
def test_what_sites_cannot_do_is_refused_at_the_start(changes, sentence, run):
    with pytest.raises(FedSegError, match=sentence):
        run(**changes)


def test_a_site_tells_no_pixels_that_it_does_not_want_to(data, tmp_path, monkeypatch):
    kits = make_kits(tmp_path / 'kits', data, {'south': dict(tell=[])})
    runner = train(across_sites(data, kits, tmp_path / 'work', monkeypatch))
    told = runner.train_loop.federation.backend.told
    # a further one may tell of a site's images: think first, then list it here and in docs/silos.md
    assert told[1].keys() == {'images', 'val_images', 'annotates', 'unannotated', 'parameters'}
    assert told[0].keys() - told[1].keys() == {'pixels', 'void', 'unannotated_pixels'} and sum(told[0]['pixels']) > 0
