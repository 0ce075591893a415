import fnmatch
import json
import unicodedata

import numpy as np
import pytest
import yaml

from fedseg_mm import FedSegError
from fedseg_mm.datasets import ClassPartitioner, DirichletPartitioner, ManifestPartitioner
from fedseg_mm.datasets.image_names import ImageNames

CLASSES = ('sky', 'road', 'car')
NAMES = [f'{site}/images/{i}.png' for site in ('mary', 'paul') for i in range(4)]
COUNTS = np.random.RandomState(0).randint(0, 3, (8, 3)) + np.eye(8, 3, dtype=np.int64)


def read(path, text=None, names=NAMES):
    if text is not None:
        path.write_text(text if isinstance(text, str) else json.dumps(text), encoding='utf-8')
    return ManifestPartitioner(str(path)).partition(COUNTS, names, CLASSES)


@pytest.mark.parametrize('partitioner', [ClassPartitioner(4, 2, seed=1), DirichletPartitioner(3, 0.3)])
def test_round_trip(tmp_path, partitioner):
    made = partitioner.partition(COUNTS, NAMES, CLASSES)
    made.save(tmp_path / 'a.json', NAMES, CLASSES)
    again = read(tmp_path / 'a.json')
    assert again == made and again.hash == made.hash
    again.save(tmp_path / 'b.json', NAMES, CLASSES)
    first, second = (json.loads((tmp_path / name).read_text()) for name in ('a.json', 'b.json'))
    assert first['clients'] == second['clients'] and first['hash'] == second['hash']


def test_another_order_of_images_is_no_other_images(tmp_path):
    """By name they are found; the hash is over indices, and says that this data set is another."""
    ClassPartitioner(4).partition(COUNTS, NAMES, CLASSES).save(tmp_path / 'a.json', NAMES, CLASSES)
    with pytest.raises(FedSegError, match='was changed, or was made for another data set'):
        read(tmp_path / 'a.json', names=NAMES[::-1])
    manifest = json.loads((tmp_path / 'a.json').read_text())
    del manifest['hash']
    partition = read(tmp_path / 'a.json', manifest, NAMES[::-1])
    for shard, client in zip(partition.clients, manifest['clients']):
        assert sorted(NAMES[::-1][index] for index in shard.indices) == sorted(client['images'])


YAML = """
clients:
- client: St Mary
  images: mary/images
  classes: [car, sky]
  unannotated: 1
- images: [paul/images/0.png, 'paul/*/[12].png']
"""


@pytest.mark.parametrize('suffix', ['.yaml', '.yml', '.json'])
def test_written_by_hand(tmp_path, suffix):
    """A folder, a file, a pattern; left-out classes are all, left-out images nobody's."""
    clients = [dict(client='St Mary', images='mary/images', classes=['car', 'sky'], unannotated=1),
               dict(images=['paul/images/0.png', 'paul/*/[12].png'])]
    partition = read(tmp_path / f'clients{suffix}', dict(clients=clients) if suffix == '.json' else YAML)
    mary, paul = partition.clients
    assert (mary.name, mary.indices, mary.classes, mary.unannotated) == ('St Mary', (0, 1, 2, 3), (0, 2), 1)
    assert (paul.name, paul.indices, paul.classes, paul.unannotated) == ('', (4, 5, 6), (0, 1, 2), None)
    values = ManifestPartitioner(str(tmp_path / f'clients{suffix}')).unannotated_values(NAMES, CLASSES)
    assert values.tolist() == [1, 1, 1, 1, -1, -1, -1, -2]


def test_folders_and_patterns_find_what_a_look_at_every_name_finds(tmp_path):
    names = [f'{folder}/{i}.png' for i in (2, 10, 1) for folder in ('a', 'a/b', 'a.b', 'ab', 'A', 'é', 'a[1]')]
    for entry in ('a', 'a/', 'a/b', 'ab', 'é', '.', './', 'a*', 'a/*', '*/1.png', '[ab]/*', 'a?b/1*', 'a[[]1]/2.png',
                  'a[1]/10.png', 'ab/[!1]*'):
        folder = entry.rstrip('/') + '/'
        if entry in names:
            expected = [names.index(entry)]
        elif set(entry) & set('*?['):
            expected = [i for i, name in enumerate(names) if fnmatch.fnmatch(name, entry)]
        else:
            expected = [i for i, name in enumerate(names) if folder == './' or name.startswith(folder)]
        (tmp_path / 'one.json').write_text(json.dumps(dict(clients=[dict(images=entry)])), encoding='utf-8')
        values = ManifestPartitioner(str(tmp_path / 'one.json')).unannotated_values(names, CLASSES)
        assert expected and np.flatnonzero(values == -1).tolist() == expected, entry


def test_the_name_that_is_meant_is_found_among_many(tmp_path):
    names = [f'site{i % 100:02d}/images/{i:05d}.png' for i in range(5000)]
    text = dict(clients=[dict(images=['site07/images/00107.png', 'site07/images/0107.png'])])
    (tmp_path / 'a.json').write_text(json.dumps(text))
    with pytest.raises(FedSegError, match=r'its images are named like site07/images/0\d107.png'):
        ManifestPartitioner(str(tmp_path / 'a.json')).unannotated_values(names, CLASSES)


def client(**changes) -> dict:
    return dict(clients=[{**dict(client='A', images='mary/images'), **changes}])


@pytest.mark.parametrize('text, message', [
    ('{', 'cannot be read'),
    ('[]', 'is not a partition manifest: it has no list of `clients`'),
    ('{"clients": []}', 'it has no list of `clients`'),
    ({'clients': [3]}, 'client 0 of .* has no `images`'),
    (client(images=[]), 'client A of .* has no `images`'),
    (client(images=5), '`images` of client A of .* must be a folder, a pattern, a file or a list'),
    (client(classes='sky, road'), r'write \[sky, road\], with brackets'),
    (client(klasses=['sky']), 'unknown key `klasses` in client A .*did you mean `classes`'),
    ({**client(), 'client': 1}, 'unknown key `client` in .*did you mean `clients`'),
    ({**client(), 'format': 'fedseg_mm partition 1'}, 'is not a partition manifest of the format'),
    (client(classes=['rood']), 'client A of .* annotates rood, but the data set has no such class: did you mean road'),
    (client(classes=[1]), 'client A of .* annotates 1, but the data set has no such class'),
    (client(images='mary/images/9.png'), 'client A of .* lists mary/images/9.png, but the data set has no '
     'such image or folder; its images are named like mary/images/'),
    (client(images='*.jpg'), r'client A of .* lists \*.jpg, but'),
    ({'clients': [dict(client='A', images='mary/images'), dict(client='B', images='*/0.png')]},
     'the image mary/images/0.png belongs to both A and B'),
    ({'clients': [dict(client='A', images='mary/images'), dict(client='A', images='paul/images')]},
     'names two clients A'),
    (client(classes=['sky'], unannotated=0), 'client A .* annotates sky, whose label is 0, and says that 0'),
    (client(unannotated=0), 'client A .* annotates sky'),
    (client(unannotated=256), '`unannotated` of client A .* must be a label value from 0 to 255'),
    (client(unannotated='none'), '`unannotated` of client A .* must be a label value'),
    ({**client(), 'hash': 'x'}, 'was changed, or was made for another data set than this one of 8 images'),
])
def test_mistakes_are_one_sentence(tmp_path, text, message):
    with pytest.raises(FedSegError, match=message) as error:
        read(tmp_path / 'clients.json', text)
    assert '\n' not in str(error.value)


def test_no_file_no_yaml_no_single_image(tmp_path):
    with pytest.raises(FedSegError, match='there is no partition manifest'):
        read(tmp_path / 'none.json')
    with pytest.raises(FedSegError, match='clients.yaml cannot be read') as error:
        read(tmp_path / 'clients.yaml', 'clients: [')
    assert '\n' not in str(error.value)
    with pytest.raises(FedSegError, match='the data set lists an image twice'):
        read(tmp_path / 'twice.json', client(), NAMES[:4] * 2)


SITES = ImageNames([f'{site}/{i}.png' for site in ('site [A]', 'site A', 'café') for i in range(3)], '/data/set/')


@pytest.mark.parametrize('entry, expected', [
    ('site [A]', [0, 1, 2]), ('site [A]/', [0, 1, 2]), ('site [A]/*.png', [0, 1, 2]), ('site [A]/[12].png', [1, 2]),
    ('site [A]/1.png', [1]), ('site [AB]', None), ('site [AB]/*', [3, 4, 5]), ('./site A', [3, 4, 5]),
    ('site A//2.png', [5]), ('site A/./2.png', [5]), ('/data/set/site A', [3, 4, 5]), ('/data//set/café/0.png', [6]),
    ('/data/set', list(range(9))), ('/data/set/*/0.png', [0, 3, 6]), ('/data/other/site A', None),
    ('cafe\u0301', [6, 7, 8]), ('cafe\u0301/1.png', [7]), ('caf?/*', [6, 7, 8]), ('site A/../café', [6, 7, 8])])
def test_folders_as_they_may_be_written(tmp_path, entry, expected):
    (tmp_path / 'one.json').write_text(json.dumps(dict(clients=[dict(images=entry)])))
    partitioner = ManifestPartitioner(str(tmp_path / 'one.json'))
    if expected is None:
        with pytest.raises(FedSegError, match='but the data set has no such image'):
            partitioner.unannotated_values(SITES, CLASSES)
    else:
        assert np.flatnonzero(partitioner.unannotated_values(SITES, CLASSES) == -1).tolist() == expected


def test_files_whose_accents_tell_them_apart(tmp_path):
    names = ['caf\xe9/0.png', 'cafe\u0301/0.png']
    for place, name in enumerate(names):
        (tmp_path / 'one.json').write_text(json.dumps(dict(clients=[dict(images=name)])))
        values = ManifestPartitioner(str(tmp_path / 'one.json')).unannotated_values(names, CLASSES)
        assert np.flatnonzero(values == -1).tolist() == [place]


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16'])
@pytest.mark.parametrize('form', ['NFC', 'NFD'])
@pytest.mark.parametrize('suffix', ['.json', '.yaml'])
def test_encodings(tmp_path, encoding, form, suffix):
    text = unicodedata.normalize(form, 'clients: [{client: Zoé, images: café, classes: [forêt]}]')
    if suffix == '.json':
        text = json.dumps(yaml.safe_load(text), ensure_ascii=False)
    (tmp_path / f'a{suffix}').write_bytes(text.encode(encoding))
    shard, = ManifestPartitioner(str(tmp_path / f'a{suffix}')).partition(
        np.ones((9, 2), np.int64), SITES, ('sky', 'forêt')).clients
    assert shard.indices == (6, 7, 8) and shard.classes == (1, )


def test_another_encoding_is_named(tmp_path):
    (tmp_path / 'a.yaml').write_bytes('clients:\n- client: Zoé'.encode('latin-1'))
    with pytest.raises(FedSegError, match=r'a.yaml is not UTF-8 \(line 2\): save it with the encoding UTF-8'):
        ManifestPartitioner(str(tmp_path / 'a.yaml'))
