"""Files that somebody has made to do harm: none runs code, leaves its folder or fills the memory, and each is named."""
import functools
import json
import pickle
import re
import socket
import struct
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmseg.datasets import BaseSegDataset

from fedseg_mm import FedSegError
from fedseg_mm.checkpoints import load_weights_only
from fedseg_mm.cli.prepare_camvid import read_label
from fedseg_mm.cli.publish import plain_meta
from fedseg_mm.config import load_config
from fedseg_mm.config.look_at_folder import look_at_folder
from fedseg_mm.datasets import scan_labels
from fedseg_mm.engine.client_state_store import ClientStateStore
from fedseg_mm.files import read_bytes
from fedseg_mm.models import BackCELoss
from fedseg_mm.report import RunRecord, write_report
from fedseg_mm.resume import read_checkpoint
from fedseg_mm.silos import kits, wire
from fedseg_mm.silos.site_config import SiteConfig
from tests.test_datasets.test_partitioners.test_manifest_properties import partition_of

#: Nine lines that stand for 10^9 words.
LAUGHS = 'a0: &a0 [x]\n' + ''.join(f'a{i}: &a{i} [{", ".join([f"*a{i - 1}"] * 10)}]\n' for i in range(1, 10))
#: Thirty that would be copied into a mapping of 2^30 keys.
MERGES = 'a0: &a0 {x: 1}\n' + ''.join(f'a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}\n' for i in range(1, 31))
WITHOUT_END = '[[...], [...], [...], [...], [...], [...], ...]'
DEEP = '[' * 100_000
NOT_FROM_AUTHOR = 'could not determine a constructor for the tag'


def png(path: Path, width: int, height: int) -> None:
    """An image that says how large it is, and has a few bytes."""
    def part(name: bytes, content: bytes) -> bytes:
        return struct.pack('>I', len(content)) + name + content + struct.pack('>I', zlib.crc32(name + content))

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b'\x89PNG\r\n\x1a\n' + part(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0))
                     + part(b'IDAT', zlib.compress(bytes(100))) + part(b'IEND', b''))


def packed(path: Path, content) -> None:
    """What torch writes, packed: 64 MB of zeros in as many kilobytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path.with_suffix('.plain'))
    with zipfile.ZipFile(path.with_suffix('.plain')) as plain, zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as out:
        for name in plain.namelist():
            out.writestr(name, bytes(1 << 26) if name.endswith('/data/0') else plain.read(name))
    path.with_suffix('.plain').unlink()


def saved(path: Path, content) -> Path:
    torch.save(content, path)
    return path


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding='utf-8')
    return path


def below(key: str, text: str) -> str:
    """A text of YAML as the value of a key."""
    return f'{key}:\n' + ''.join(f'  {line}\n' for line in text.splitlines())


def manifest(folder: Path, text, name: str = 'a.yaml'):
    return partition_of(written(folder / name, text if isinstance(text, str) else json.dumps(text)))


def client(**changes) -> dict:
    return dict(clients=[{**dict(client='A', images='mary'), **changes}])


def scan(folder: Path, large: str) -> None:
    for kind in ('images', 'masks'):
        (folder / kind).mkdir()
        cv2.imwrite(str(folder / kind / 'a.png'), np.zeros((4, 4), np.uint8))
    png(folder / large / 'a.png', 60000, 60000)
    scan_labels(BaseSegDataset(
        img_suffix='.png', metainfo=dict(classes=('a', 'b')), data_root=str(folder), data_prefix=dict(
            img_path='images', seg_map_path='masks'), pipeline=[
                dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]))


def site(folder: Path, text: str) -> None:
    SiteConfig.read(written(folder / 'site.yaml', text))


def kit(folder: Path, content) -> Path:
    written(folder / 'startup' / 'fed_client.json', content if isinstance(content, str) else json.dumps(content))
    return folder


def state(folder: Path, content=None) -> None:
    path = folder / '3' / 'round_1.pth'
    if content is None:
        packed(path, dict(state=dict(a=torch.zeros(4))))
    else:
        path.parent.mkdir()
        torch.save(content, path)
    ClientStateStore(folder).load(3)


def wire_message(words: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(struct.pack('>IQ', len(words), 0) + words)
        wire.receive(theirs)


def code(folder: Path) -> str:
    """A value of YAML that makes a file, if its reader builds what the author wants."""
    return f'!!python/object/apply:os.system ["touch {folder}/it_ran"]'


def pickled(folder: Path) -> str:
    class RunsCode:
        def __reduce__(self):
            return functools.partial(open, f'{folder}/it_ran', 'w'), ()

    (folder / 'weights.pkl').write_bytes(pickle.dumps(dict(a=1)))
    return str(folder / 'weights.pkl')


ROUND = dict(round=1, cohort=[0], time=1.0, images=3, bytes_up=1, bytes_down=1,
             clients=[dict(client=0, name='A', images=3, time=1.0, used=True, loss=0.5)])


def report(folder: Path, *lines) -> None:
    text = '\n'.join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    written(folder / '20260101_000000' / 'vis_data' / 'rounds.json', text)
    write_report([RunRecord(folder, '$\\frac$')], folder / 'report.html')


NO_RUN = 'line 2 of PATH/20260101_000000/vis_data/rounds.json is none that a run has written: take it out'
KIT_AGAIN = 'PATH/startup/fed_client.json is damaged: bring the kit here again'
#: What is read, and the sentence; N stands for numbers of bytes.
HOSTILE = {
    # checkpoints and what clients keep
    'a packed checkpoint': (
        lambda folder: [packed(folder / 'a.pth', dict(state_dict=dict(w=torch.zeros(4)))), load_weights_only(
            folder / 'a.pth')],
        'PATH/a.pth is refused: it has N bytes, but says that it holds N, as no file that torch writes does'),
    'one number that stands for a million': (
        lambda folder: load_weights_only(saved(folder / 'a.pth', dict(state_dict=dict(
            w=torch.zeros(1).expand(1000, 1000))))),
        'the checkpoint PATH/a.pth is refused: its tensor w of shape (N, N) is larger than the file'),
    'weights without names': (
        lambda folder: load_weights_only(saved(folder / 'a.pth', dict(state_dict=[1]))),
        'PATH/a.pth is not a checkpoint: it has no `state_dict` of weights by name'),
    'a checkpoint of a list': (
        lambda folder: load_weights_only(saved(folder / 'a.pth', dict(meta=[1]))),
        'PATH/a.pth is not a checkpoint: its `meta` is [N]'),
    'clients that are paths': (
        lambda folder: read_checkpoint(saved(folder / 'a.pth', dict(federated=dict(clients={'../..': 1})))),
        "the checkpoint says {'../..': N} of what its clients keep, which no run of fedseg_mm has written: do not use "
        'it'),
    'a folder of clients elsewhere': (
        lambda folder: read_checkpoint(saved(folder / 'a.pth', dict(federated=dict(clients_folder='../..')))),
        "the checkpoint names '../..' as the folder of its clients, which no run of fedseg_mm has written: do not use "
        'it'),
    'a packed state of a client': (
        state, 'the state of client N in PATH/3/round_1.pth cannot be read: restore the file, or start again without '
        '--resume'),
    'a state of other things': (
        lambda folder: state(folder, dict(state=dict(a='x'))),
        'the state of client N in PATH/3/round_1.pth cannot be read: restore the file, or start again without '
        '--resume'),
    # YAML and pickles of configs
    'a config of YAML': (
        lambda folder: load_config(str(written(folder / 'a.yaml', f'model: {code(folder)}\n'))),
        f'the config PATH/a.yaml cannot be read: ValueError: {NOT_FROM_AUTHOR}'),
    'class weights of YAML': (
        lambda folder: BackCELoss(class_weight=str(written(folder / 'a.yml', f'- {code(folder)}\n'))), NOT_FROM_AUTHOR),
    'class weights of a pickle': (
        lambda folder: BackCELoss(class_weight=pickled(folder)),
        'a file that the config names is a pickle, which could run code: save what it holds as JSON, YAML or, for an '
        'array, .npy'),
    # manifests
    'a manifest that runs code': (
        lambda folder: manifest(folder, f'clients: {code(folder)}\n'),
        'the partition manifest PATH/a.yaml cannot be read as YAML, in which patterns such as "*.png" need quotes: '
        f'{NOT_FROM_AUTHOR}'),
    'images without end': (
        lambda folder: manifest(folder, f'{below("made_by", LAUGHS)}clients: [{{client: A, images: *a9}}]\n'),
        '`images` of client A of PATH/a.yaml must be a folder, a pattern, a file or a list of these, but is '
        f'{WITHOUT_END}'),
    'a name without end': (
        lambda folder: manifest(folder, f'{below("made_by", LAUGHS)}clients: [{{client: *a9, images: mary}}]\n'),
        f'`client` of client N of PATH/a.yaml must be its name, in one line, but is {WITHOUT_END}'),
    'classes without end': (
        lambda folder: manifest(folder, f'{below("made_by", LAUGHS)}clients: [{{client: A, images: mary, classes: '
                                        '*a9}]\n'),
        f'`classes` of client A of PATH/a.yaml must be a list of names, but is {WITHOUT_END}'),
    'a manifest of merges': (
        lambda folder: manifest(folder, f'{MERGES}clients: [*a30]\n'),
        'the partition manifest PATH/a.yaml cannot be read as YAML, in which patterns such as "*.png" need quotes: '
        f"{NOT_FROM_AUTHOR} 'tag:yaml.org,2002:merge'"),
    'a deep manifest': (
        lambda folder: manifest(folder, DEEP, 'a.json'),
        'the partition manifest PATH/a.json cannot be read as JSON, because its name does not end in .yaml: maximum '
        'recursion depth exceeded'),
    'an image above the data': (
        lambda folder: manifest(folder, client(images='../../etc/passwd')),
        'client A of PATH/a.yaml lists ../../etc/passwd, but the data set has no such image or folder; its images are '
        'named like'),
    'an image of the system': (
        lambda folder: manifest(folder, client(images='/etc/passwd')),
        'client A of PATH/a.yaml lists /etc/passwd, but the data set has no such image or folder; its images are '
        'named like'),
    'a name that clears the screen': (
        lambda folder: manifest(folder, client(client='A\x1b[2J')),
        '`client` of client N of PATH/a.yaml must be its name, in one line, but is A [2J'),
    'a large manifest': (
        lambda folder: read_bytes(written(folder / 'a.json', 'x' * (3 << 20)), 2 << 20),
        'PATH/a.json has more than 2 MiB, which no such file has'),
    # images
    'an image of 60000x60000': (
        lambda folder: scan(folder, 'images'),
        'the image PATH/images/a.png says that it is 60000x60000 pixels, which nobody reads: at most N can be; cut it '
        'into tiles'),
    'a mask of 60000x60000': (
        lambda folder: scan(folder, 'masks'),
        'the label PATH/masks/a.png of image PATH/images/a.png says that it is 60000x60000 pixels, which nobody reads: '
        'at most N can be; cut it into tiles'),
    'a mask that fed_init looks at': (
        lambda folder: [png(folder / kind / 'a.png', 60000, 60000) for kind in ('images', 'masks')] and look_at_folder(
            folder),
        'PATH/images/a.png or its mask a.png cannot be read: Image size (N pixels) exceeds limit of N pixels, could be '
        'decompression bomb DOS attack.'),
    'a label of CamVid': (
        lambda folder: [png(folder / 'a.png', 60000, 60000), read_label(folder / 'a.png')],
        'the label PATH/a.png is damaged: Image size (N pixels) exceeds limit of N pixels, could be decompression bomb '
        'DOS attack.'),
    # logs for the report
    'a round of text': (lambda folder: report(folder, ROUND, '"x"'), NO_RUN),
    'a round of nothing': (lambda folder: report(folder, ROUND, '{}'), NO_RUN),
    'a client of nothing': (lambda folder: report(folder, ROUND, {**ROUND, 'clients': [1]}), NO_RUN),
    'a time of text': (lambda folder: report(folder, ROUND, {**ROUND, 'time': 'long'}), NO_RUN),
    'a time without end': (lambda folder: report(folder, ROUND, {**ROUND, 'time': float('inf')}), NO_RUN),
    'no round at all': (
        lambda folder: report(folder, DEEP),
        'PATH holds no log of a federated run (*/vis_data/rounds.json): name the work dir of a training that has '
        'finished a round'),
    # sites
    'a site.yaml that runs code': (
        lambda folder: site(folder, f'train: {code(folder)}\n'), f'PATH/site.yaml is not YAML: {NOT_FROM_AUTHOR}'),
    'a site.yaml without end': (
        lambda folder: site(folder, below('train', LAUGHS)),
        "PATH/site.yaml: `train` must name two folders, `images` and `masks`, but is {'a0': [...], 'a1': [...], "),
    'a kit of nothing': (lambda folder: kits.site_name(kit(folder, [])), KIT_AGAIN),
    'a deep kit': (lambda folder: kits.site_name(kit(folder, DEEP)), KIT_AGAIN),
    'a kit whose name is a path': (
        lambda folder: kits.site_name(kit(folder, dict(client=dict(fqsn='../../x')))),
        'PATH calls its site ../../x, which `silo provision` calls none: bring the kit here again'),
    'a kit without a server': (lambda folder: kits.server_of(kit(folder, dict(servers=[]))), KIT_AGAIN),
    'sites that are paths': (
        lambda folder: kits.sites_of(written(folder / 'federation.json', '{"sites": ["../x"]}').parent),
        "PATH is no server's startup kit: name the folder server/ that `silo provision` made"),
    'deep words': (lambda folder: wire_message(DEEP.encode()), 'a message does not begin with JSON'),
}


@pytest.mark.parametrize('what', HOSTILE)
def test_a_hostile_file_is_one_exact_sentence(what, tmp_path, monkeypatch):
    monkeypatch.setenv('FEDSEG_CACHE', str(tmp_path / 'cache'))
    read, sentence = HOSTILE[what]
    with pytest.raises((FedSegError, ValueError, wire.WireError)) as error:
        read(tmp_path)
    said = str(error.value).replace(str(tmp_path), 'PATH')
    assert said.isprintable() and len(said) < 1000
    numbers = re.compile(r'(?<![\w./])\d+(?![\w./])')
    assert numbers.sub('N', said).startswith(numbers.sub('N', sentence))
    assert not (tmp_path / 'it_ran').exists()


def test_the_names_and_evaluations_of_a_run_do_not_keep_its_report_from_being_written(tmp_path):
    """What is not as a test writes it is left out, and names are no formulas."""
    newest = tmp_path / '20260102_000000'
    hostile = {**ROUND, 'clients': [{**ROUND['clients'][0], 'name': '$\\frac$<script>'}]}
    written(newest / 'confusion.csv', 'truth,' + 'a' * 200_000 + f'\n{"a" * 200_000},{10**30}\n')
    written(newest / 'per_client.json', '{"clients": [{"client": 1}], "spread": {}}')
    written(newest / 'predictions' / 'classes.json', json.dumps(dict(
        names=['$\\frac$', 'b'], palette=[[0, 0, 0], [1, 1, 1]], images=['../../a.png'])))
    for what in ('image', 'label', 'prediction'):
        png(newest / 'predictions' / f'0_{what}.png', 60000, 60000)
    written(tmp_path / 'partition.json', '{"clients": [3], "class_names": [[]]}')
    written(tmp_path / 'config.py', 'a = {[]: 1}')
    report(tmp_path, hostile)
    page = (tmp_path / 'report.html').read_text()
    assert '$\\frac$&lt;script&gt;' in page and '<script' not in page and 'Predictions' not in page
    for what in ('image', 'label', 'prediction'):
        cv2.imwrite(str(newest / 'predictions' / f'0_{what}.png'), np.zeros((9, 9), np.uint8))
    report(tmp_path, hostile)
    assert 'Predictions' in (tmp_path / 'report.html').read_text()


def test_classes_of_a_checkpoint_are_names_and_colours():
    """Whatever else they are would be gone through by whoever writes them."""
    endless: list = []
    endless.append(endless)
    right = dict(classes=('a', 'b'), palette=[[0, 0, 0], [255, 0, 9]])
    assert plain_meta(dict(dataset_meta=right))['dataset_meta'] == right
    for wrong in (dict(classes=endless, palette=endless), dict(classes=3), endless, dict(palette=[[1, 2]])):
        assert 'dataset_meta' not in plain_meta(dict(dataset_meta=wrong))
