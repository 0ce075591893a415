"""The report's figures are the logs'; it runs nothing that it reads, and says what is not there."""
import html
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest
from matplotlib.figure import Figure

from fedseg_mm.cli.report import main, run_names
from fedseg_mm.cli.test import main as evaluate
from fedseg_mm.cli.train import main as train
from fedseg_mm.report import RunRecord, pictures
from fedseg_mm.report.published import published_beside
from fedseg_mm.report.settings import differences, read_settings
from tests.conftest import write_config


@pytest.fixture(scope='module')
def run(tiny_data, tmp_path_factory):
    """Six rounds, each evaluated, of clients of which one has a name that is HTML."""
    folder = tmp_path_factory.mktemp('run')
    names = [f'img_dir/train/{i:03d}.png' for i in range(24)]
    clients = [dict(client='<b>clinic</b>', images=names[:12], classes=['sky', 'road']),
               dict(client='harbour', images=names[12:], classes=['car'])]
    (folder / 'clients.json').write_text(json.dumps(dict(clients=clients)))
    train([write_config(tiny_data, folder, **{
        'federated.partitioner': dict(_delete_=True, type='ManifestPartitioner', manifest=str(folder / 'clients.json')),
        'federated.clients_per_round': 1, 'train_cfg.max_rounds': 6, 'train_cfg.val_interval': 1})])
    return folder


def page_of(*arguments) -> str:
    main([str(argument) for argument in arguments])
    return (arguments[0] / 'report.html').read_text()


def cells(page: str) -> list[list[str]]:
    """The rows of all tables."""
    return [[html.unescape(re.sub('<[^>]+>', '', cell)).strip() for cell in re.findall(r'<t[hd].*?>(.*?)</t[hd]>', row,
                                                                                       re.DOTALL)]
            for row in re.findall('<tr>(.*?)</tr>', page, re.DOTALL)]


def test_figures_are_those_of_the_logs(run, capsys):
    page = page_of(run)
    assert f'Report       {run}/report.html' in capsys.readouterr().out
    lines = [json.loads(line) for path in run.glob('*/vis_data/scalars.json') for line in path.read_text().splitlines()]
    miou = {line['step']: line['mIoU'] for line in lines if 'mIoU' in line}
    best = max(miou.values())
    row = next(dict(zip(cells(page)[0], row)) for row in cells(page) if row[0] == run.name)
    assert row['method'] == 'FedAvg + BackCELoss'
    value, words = row['best mIoU (%)'].split(' ', 1)
    assert value == f'{best:.2f}' and miou[int(words.split()[-1][:-1])] == best
    assert row['last mIoU (%)'] == f'{miou[6]:.2f}' and row['rounds'] == '6 of 6'
    assert row['mean of the last five (%)'] == f'{sum(list(miou.values())[1:]) / 5:.2f}'
    rounds = [json.loads(line) for path in run.glob('*/vis_data/rounds.json') for line in path.read_text().splitlines()]
    assert row['sent'] == f'{sum(line["bytes_up"] + line["bytes_down"] for line in rounds) / 1e6:,.1f} MB'
    taken_part = {client['name']: sum(client['client'] in line['cohort'] for line in rounds)
                  for line in rounds for client in line['clients']}
    shown = {row[0]: int(row[1]) for row in cells(page) if row[0] in taken_part}
    assert shown == taken_part
    assert 'No client annotates tree' in page


def test_class_figures_are_mmsegmentations_own(run):
    """The mean over the classes of scalars.json is the mIoU beside it."""
    record = RunRecord(run, 'run')
    assert list(record.class_iou) == list(record.evaluations) == [1, 2, 3, 4, 5, 6]
    for number, line in record.class_iou.items():
        assert sum(line.values()) / len(line) == pytest.approx(record.evaluations[number]['mIoU'], abs=0.011)


def test_the_page_needs_nothing_else_and_runs_nothing(run):
    page = page_of(run)
    assert '<b>clinic' not in page and '&lt;b&gt;clinic' in page
    addresses = re.findall(r'(?:src|href)="(.*?)"', page)
    assert len(addresses) == 4 and all(address.startswith('data:image/png;base64,') for address in addresses)
    assert '<script' not in page and "default-src 'none'" in page
    opened = []

    class Checker(HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag not in ('meta', 'img', 'br'):
                opened.append(tag)

        def handle_endtag(self, tag):
            assert opened.pop() == tag

    Checker().feed(page)
    assert not opened


def test_runs_are_compared(run, tmp_path):
    for seed in (6, 7):
        shutil.copytree(run, tmp_path / f'seed{seed}')
        config = tmp_path / f'seed{seed}' / 'config.py'
        config.write_text(config.read_text().replace('seed=5', f'seed={seed}'))
    page = page_of(tmp_path / 'seed6', tmp_path / 'seed7')
    assert ['randomness.seed', '6', '7'] in cells(page)
    assert any(row[0] == 'seed6, seed7' and row[2].endswith('± 0.00') for row in cells(page) if len(row) == 4)


def test_a_run_that_goes_on_and_has_no_evaluation(run, tmp_path):
    folder = tmp_path / 'run'
    shutil.copytree(run, folder)
    for path in folder.glob('*/vis_data/*.json'):
        kept = [line for line in path.read_text().splitlines() if 'mIoU' not in line and 'IoU/' not in line]
        path.write_text('\n'.join(kept[:2]) + '\n{"round": 3, "coh')  # cut off by a kill
    page = page_of(folder)
    assert 'It has trained 2 of 6 rounds. It has no evaluation yet.' in page


def test_a_config_with_code_is_not_run(run, tmp_path):
    folder = tmp_path / 'run'
    shutil.copytree(run, folder)
    (folder / 'config.py').write_text(f'open({str(tmp_path / "ran")!r}, "w")')
    page_of(folder)
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize('names, sentence', [
    (['nothing'], 'there is no work dir'), (['empty'], 'holds no log of a federated run'),
    (['run', '--out', 'x.pdf'], '--out x.pdf must end in .html')])
def test_what_cannot_be_shown_is_one_sentence(run, tmp_path, names, sentence, monkeypatch):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'run').symlink_to(run)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=sentence):
        main(names)


def test_settings_of_any_shape(tmp_path):
    path = tmp_path / 'config.py'
    path.write_text("a = dict(b=[dict(c=1), dict(c=-2)], d=(1, 2), e={'x y': None})\nf = []\n")
    assert read_settings(path) == {'a.b.0.c': 1, 'a.b.1.c': -2, 'a.d': [1, 2], 'a.e.x y': None, 'f': []}
    assert differences([dict(a=1, b=2, work_dir='x'), dict(a=1, c=3, work_dir='y')]) == [
        ('b', ['2', '–']), ('c', ['–', '3'])]


def test_names_tell_folders_apart(tmp_path):
    assert run_names([tmp_path / 'a' / 'run', tmp_path / 'b' / 'run']) == ['a/run', 'b/run']
    assert run_names([tmp_path / 'a', tmp_path / 'a']) == ['a', 'a']


def test_what_the_evaluation_left_is_on_the_page(run, tmp_path):
    folder = tmp_path / 'run'
    shutil.copytree(run, folder)
    evaluate([str(run / 'config.py'), str(folder / 'round_6.pth'), '--per-client', '--work-dir', str(folder)])
    page = page_of(folder)
    found = json.loads(max(folder.glob('*/per_client.json')).read_text())
    rows = cells(page)
    for client in found['clients']:
        row = next(row for row in rows if row[0] == client['client'] and row[1] == ', '.join(client['annotated']))
        expected = [client[kind][name] for kind in ('own_images', 'test_images')
                    for name in ('mIoU', 'mIoU_annotated', 'mIoU_never_annotated')]
        assert row[2:] == ['–' if value is None else f'{value:.2f}' for value in expected]
    spread = found['spread']['own_images']['mIoU']
    assert next(row for row in rows if row[0] == 'worst')[2] == f'{spread["min"]:.2f}'
    assert html.escape(spread['worst']) in page and '<b>clinic' not in page
    for picture in ('predictions', 'confusion_0'):
        assert (folder / 'report' / f'{picture}.png').stat().st_size > 5000
    lines = [line for line in rows if line[0] == folder.name]
    assert 'of annotated classes (%)' in rows[0] and lines[0][4] != '–'
    (max(folder.glob('*/confusion.csv'))).write_text('damaged')
    (max(folder.glob('*/per_client.json'))).write_text('{"clients": 3')
    (max(folder.glob('*/predictions'), key=str) / '0_prediction.png').write_bytes(b'damaged')
    assert 'Evaluation per client' not in page_of(folder)


@pytest.mark.parametrize('changes, figures', [
    ({}, '58.38 / 88.51'),
    ({'federated.algorithm.type': 'FedSeg', 'federated.partitioner.classes_per_client': 2}, '64.67 / 91.25'),
    ({'model.decode_head.loss_decode.type': 'CrossEntropyLoss'}, '19.06 / 51.71'),
    ({'test_dataloader.dataset.type': 'CityscapesDataset', 'federated.algorithm.type': 'MOON'}, '45.84 / 88.58'),
    ({'model.decode_head.loss_decode.balance_power': 0.5}, None),
    ({'federated.partitioner.type': 'IIDPartitioner'}, None),
    ({'federated.algorithm.type': 'SCAFFOLD'}, None),
    ({'test_dataloader.dataset.type': 'BaseSegDataset'}, None)])
def test_published_figures_stand_beside_the_settings_that_they_are_of(changes, figures):
    settings = {'federated.algorithm.type': 'FedAvg', 'federated.partitioner.type': 'ClassPartitioner',
                'federated.partitioner.classes_per_client': 1, 'test_dataloader.dataset.type': 'CamVidDataset',
                'model.decode_head.loss_decode.type': 'BackCELoss'}
    assert published_beside({**settings, **changes}) == figures


def test_epsilon_of_a_private_run(run, tmp_path):
    """A line and a curve where the logs have it, and neither where they do not."""
    private = tmp_path / 'private'
    shutil.copytree(run, private)
    path = next(private.glob('*/vis_data/rounds.json'))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        line['privacy'] = dict(epsilon=0.5 * line['round'], delta=1e-4, adjacency='one client added or removed',
                               noise_multiplier=1.0, noise_std=0.1, clip=0.5, reproducible=True)
    path.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    assert RunRecord(private, 'p').epsilon == {number: 0.5 * number for number in range(1, 7)}
    page = page_of(private)
    assert ('Client-level differential privacy: epsilon 3 at delta 0.0001 (one client added or removed), but noise '
            'derived from the seed gives no protection against anyone who knows it.') in html.unescape(page)
    assert (private / 'report' / 'privacy.png').is_file() and 'epsilon over rounds' in page
    assert 'epsilon' not in page_of(run)


@pytest.mark.parametrize('number', [2, 60])
def test_axes_count_whole_rounds_and_have_room_for_them(monkeypatch, number):
    figures: list[Figure] = []
    monkeypatch.setattr(pictures, '_save', lambda figure, path: figures.append(figure))
    rounds = range(1, number + 1)
    run = SimpleNamespace(
        name='run', partition={}, unannotated_classes=[], class_iou={round: {'road': 50.} for round in rounds},
        rounds={round: dict(bytes_up=1, bytes_down=1, time=1.) for round in rounds},
        evaluations={round: dict(mIoU=50., aAcc=50.) for round in rounds},
        clients=[dict(name='A', rounds=number, last_loss=1., seconds=1.)])
    pictures.draw_curves([run], Path())
    pictures.draw_clients(run, Path())
    pictures.draw_rounds([run], Path())
    pictures.draw_classes(run, Path())
    curves, clients, seconds, classes = (figure.axes for figure in figures)
    for axis in (curves[0].xaxis, curves[1].xaxis, clients[0].yaxis, seconds[0].xaxis, seconds[1].xaxis):
        assert all(tick == round(tick) for tick in axis.get_ticklocs())
    assert [label.get_text() for label in classes[0].get_xticklabels()][:2] == ['1', '2' if number == 2 else '4']
    assert len(classes[0].get_xticklabels()) <= 25
