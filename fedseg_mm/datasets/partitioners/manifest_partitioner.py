"""Who holds what, as a file says: a real federation, or a partition made before."""
import codecs
import difflib
import fnmatch
import glob
import posixpath
import re
import unicodedata
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from datetime import date
from functools import cached_property
from pathlib import Path

import numpy as np

from fedseg_mm.datasets.partition import FORMAT, ClientShard, Partition
from fedseg_mm.datasets.partitioners.partitioner import Partitioner
from fedseg_mm.errors import FedSegError, shown
from fedseg_mm.files import parse, read_bytes
from fedseg_mm.registry import PARTITIONERS
from fedseg_mm.validation import check_keys, is_name


def _composed(text: str) -> str:
    """One spelling of accents: some systems write é as one character, others as e and an accent."""
    return text if text.isascii() else unicodedata.normalize('NFC', text)


class _ImageIndex:
    """Finds images by name, folder or pattern, without looking at all of them for each.

    Args:
        names (Sequence[str]): The data set's images by index, each once.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.root: str | None = getattr(names, 'root', None)
        self.index_of = {name: index for index, name in enumerate(names)}
        composed = {_composed(name): index for index, name in enumerate(names)}
        #: Whether accents may be spelled in any way; otherwise their spelling tells two files apart.
        self.any_spelling = len(composed) == len(self.index_of)
        if self.any_spelling:
            self.index_of = composed

    @cached_property
    def by_name(self) -> list[str]:
        """All names in order; not needed where every entry is a name."""
        return sorted(self.index_of)

    def find(self, entry: str) -> list[int]:
        """Indices, ascending, of the images that a manifest's entry means."""
        if (index := self.index_of.get(entry)) is not None:
            return [index]
        entry = self._below_the_folder(_composed(entry) if self.any_spelling else entry)
        if entry in self.index_of:
            return [self.index_of[entry]]
        found = self.by_name if entry == '.' else self._starting_with(f'{entry}/')
        if not found and any(sign in entry for sign in '*?['):
            found = self._matching(entry)
        return sorted(self.index_of[name] for name in found)

    def _below_the_folder(self, entry: str) -> str:
        """The entry as names are written: below the data folder, without ``./``, ``//`` and a final slash."""
        if '://' in entry:
            return entry
        path = posixpath.normpath(entry)
        if self.root and path.startswith('/'):
            path = path[1:] if path.startswith('//') else path
            if f'{path}/'.startswith(self.root):
                return path[len(self.root):] or '.'
        return path

    def _matching(self, pattern: str) -> list[str]:
        """Names that match; folders that there are stand for themselves, whatever signs are in their names."""
        parts = pattern.split('/')
        for depth in range(len(parts) - 1, 0, -1):
            folder = '/'.join(parts[:depth]) + '/'
            if '[' in folder and (inside := self._starting_with(folder)):
                return fnmatch.filter(inside, glob.escape(folder) + '/'.join(parts[depth:]))
        return fnmatch.filter(self._starting_with(re.split(r'[*?[]', pattern, maxsplit=1)[0]), pattern)

    def _starting_with(self, start: str) -> list[str]:
        """They are neighbours; the greatest character ends them."""
        return self.by_name[bisect_left(self.by_name, start):bisect_left(self.by_name, start + chr(0x10ffff))]

    def nearest(self, entry: str) -> str:
        """A name like it, of a thousand neighbours: to compare a million names would take minutes."""
        place = bisect_left(self.by_name, entry)
        near = self.by_name[max(0, place - 500):place + 500]
        return (difflib.get_close_matches(entry[:200], near, n=1) or near)[0]


@PARTITIONERS.register_module()
class ManifestPartitioner(Partitioner):
    """Read the partition from a manifest, JSON or YAML.

    A manifest is written by hand, one entry per client::

        clients:
        - client: St Mary             # its name
          images: st_mary/images      # a folder, a pattern (*.png), a file, or a list of these
          classes: [liver, tumour]    # what it annotates; left out: all classes
          unannotated: 0              # label value that says "unannotated"; left out: its labels have none
        - ...

    or by a training or ``tools/fed_partition.py`` (``partition.json``); those
    carry a hash and are refused if they were changed or if the data set has
    other images. Paths are those below the data set's folder (with several
    data sets, below the folder that holds them all). Images that no client
    names are left out. ``unannotated`` is the value after MMSegmentation's
    loading: with ``reduce_zero_label``, 0 has become 255.

    Args:
        manifest (str): The file.

    Raises:
        FedSegError: The file is missing or not a manifest, names an image or
            class that the data set does not have, or an image twice.
    """

    def __init__(self, manifest: str) -> None:
        super().__init__(1)
        self.manifest = str(manifest)
        self._content = self._read()

    def unannotated_values(self, image_names: Sequence[str], class_names: Sequence[str]) -> np.ndarray:
        values = np.full(len(image_names), -2, np.int64)
        for shard in self._shards(image_names, class_names):
            values[list(shard.indices)] = -1 if shard.unannotated is None else shard.unannotated
        return values

    def partition(self, class_counts, image_names=(), class_names=()) -> Partition:
        partition = super().partition(class_counts, image_names, class_names)
        stated = self._content.get('hash', partition.hash)
        if stated != partition.hash:
            raise FedSegError(f'the partition manifest {self.manifest} was changed, or was made for another data set '
                              f'than this one of {len(image_names)} images: its hash does not match (remove '
                              '`hash` if the change is intended)')
        return partition

    def make_clients(self, presence, image_names, class_names, rng) -> tuple[ClientShard, ...]:
        return self._shards(image_names, class_names)

    def _read(self) -> dict:
        path = Path(self.manifest)
        if not self.manifest or path.is_dir():
            raise FedSegError(f'federated.partitioner must name a partition manifest or be a dict, but is '
                              f'{self.manifest!r}')
        is_yaml = path.suffix.lower() in ('.yaml', '.yml')
        try:
            content = parse(self._text(read_bytes(path)), is_yaml)
        except FileNotFoundError:
            hint = (f'; for the partitioner of that name, write federated.partitioner=dict(type=\'{path}\', ...)'
                    if str(path) in PARTITIONERS.module_dict else '')
            raise FedSegError(f'there is no partition manifest {path}{hint}') from None
        except FedSegError:
            raise
        except (OSError, ValueError) as error:
            how = ('as YAML, in which patterns such as "*.png" need quotes' if is_yaml else
                   'as JSON, because its name does not end in .yaml')
            raise FedSegError(f'the partition manifest {path} cannot be read {how}: {error}') from error
        if not isinstance(content, dict) or not isinstance(content.get('clients'), list) or not content['clients']:
            raise FedSegError(f'{path} is not a partition manifest: it has no list of `clients`')
        if content.get('format', FORMAT) != FORMAT:
            raise FedSegError(f'{path} is not a partition manifest of the format "{FORMAT}"')
        check_keys(content, ('format', 'hash', 'made_by', 'num_images', 'class_names', 'clients'), str(path))
        for place, client in enumerate(content['clients']):
            if not self._is_text(client.get('client', place) if isinstance(client, dict) else place):
                raise FedSegError(f'`client` of client {place} of {path} must be its name, in one line, but is '
                                  f'{shown(client["client"])}')
            where = f'client {shown(self._name(client, place))} of {path}'
            images = client.get('images') if isinstance(client, dict) else None
            if not images:
                raise FedSegError(f'{where} has no `images`')
            if not all(isinstance(entry, str) for entry in (images if isinstance(images, list) else [images])):
                raise FedSegError(f'`images` of {where} must be a folder, a pattern, a file or a list of these, but is '
                                  f'{shown(images)}')
            classes = client.get('classes')
            if not all(map(self._is_text, classes if isinstance(classes, list) else [classes])):
                raise FedSegError(f'`classes` of {where} must be a list of names, but is {shown(classes)}')
            check_keys(client, ('client', 'images', 'classes', 'unannotated'), where)
        names = [self._name(client, place) for place, client in enumerate(content['clients'])]
        if len(set(names)) < len(names):
            twice, _ = Counter(names).most_common(1)[0]
            raise FedSegError(f'{path} names two clients {shown(twice)}: give each a name of its own')
        return content

    def _text(self, content: bytes) -> str:
        """The text of a file in UTF-8, or in UTF-16 if it begins by saying so."""
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return content.decode('utf-16')
        try:
            return content.decode('utf-8-sig')
        except UnicodeDecodeError as error:
            line = content[:error.start].count(b'\n') + 1
            raise FedSegError(f'the partition manifest {self.manifest} is not UTF-8 (line {line}): save it with the '
                              'encoding UTF-8') from None

    @staticmethod
    def _is_text(value) -> bool:
        """Whether a value can be written as a name; YAML takes 007 for a number."""
        if isinstance(value, int):
            return abs(value) < 1 << 63
        return is_name(value) if isinstance(value, str) else value is None or isinstance(value, (float, date))

    @staticmethod
    def _name(client, place: int) -> str:
        return str(client.get('client', place)) if isinstance(client, dict) else str(place)

    def _shards(self, image_names: Sequence[str], class_names: Sequence[str]) -> tuple[ClientShard, ...]:
        images = _ImageIndex(image_names)
        if len(images.index_of) < len(image_names):
            raise FedSegError(f'the data set lists an image twice, so the partition manifest {self.manifest} '
                              'cannot say which one it means')
        class_of: dict[str, int] = {}
        for cls, class_name in enumerate(class_names):
            class_of.setdefault(class_name, cls)
            class_of.setdefault(_composed(class_name), cls)
        owner: dict[int, str] = {}
        shards = []
        for place, client in enumerate(self._content['clients']):
            name = self._name(client, place)
            entries = client['images']
            indices: list[int] = []
            for entry in [entries] if isinstance(entries, str) else entries:
                indices += self._find(str(entry), images, name)
            for index in indices:
                if owner.setdefault(index, name) != name:
                    raise FedSegError(f'the image {image_names[index]} belongs to both {shown(owner[index])} and '
                                      f'{shown(name)} in {self.manifest}: give it to one of them')
            classes = self._classes(client, class_names, class_of, name)
            unannotated = self._unannotated(client, classes, class_names, name)
            shards.append(ClientShard(tuple(sorted(set(indices))), classes, '' if name == str(place) else name,
                                      unannotated))
        return tuple(shards)

    def _find(self, entry: str, images: _ImageIndex, client: str) -> list[int]:
        found = images.find(entry)
        if not found:
            raise FedSegError(f'client {shown(client)} of {self.manifest} lists {shown(entry)}, but the data set has '
                              f'no such image or folder; its images are named like {images.nearest(entry)}')
        return found

    def _classes(self, client: dict, class_names: Sequence[str], class_of: dict[str, int], name: str
                 ) -> tuple[int, ...]:
        given = client.get('classes')
        if given is None:
            return tuple(range(len(class_names)))
        given = given if isinstance(given, list) else [given]
        given = [str(cls) if str(cls) in class_of else _composed(str(cls)) for cls in given]
        for cls in given:
            if cls not in class_of:
                near = difflib.get_close_matches(cls[:200], class_names, n=1, cutoff=0.4)
                hint = (f'write [{shown(cls)}], with brackets' if ',' in cls else
                        f'did you mean {near[0]}?' if near else f'its classes are {", ".join(class_names)}')
                raise FedSegError(f'client {shown(name)} of {self.manifest} annotates {shown(cls)}, but the data set '
                                  f'has no such class: {hint}')
        return tuple(sorted({class_of[cls] for cls in given}))

    def _unannotated(self, client: dict, classes: tuple[int, ...], class_names: Sequence[str], name: str
                     ) -> int | None:
        value = client.get('unannotated')
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 255:
            raise FedSegError(f'`unannotated` of client {shown(name)} of {self.manifest} must be a label value from 0 '
                              f'to 255, but is {shown(value)}')
        if value in classes:
            raise FedSegError(f'client {shown(name)} of {self.manifest} annotates {class_names[value]}, whose label is '
                              f'{value}, and says that {value} means unannotated')
        return value
