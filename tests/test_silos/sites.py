"""Two sites for the tests: their images, their kits, and a way to their trainers without a network."""
import json
import threading
from pathlib import Path

import yaml

from fedseg_mm.silos.desk import Desk
from fedseg_mm.silos.site_config import SiteConfig
from fedseg_mm.silos.site_link import NoWay
from fedseg_mm.silos.site_trainer import SiteTrainer
from fedseg_mm.silos.spool import Spool
from fedseg_mm.silos.trainer_process import do_and_finish
from tests.conftest import make_images

SITES = ('north', 'south')


def make_sites(data: Path) -> None:
    """A folder per site below one folder: for a training in one place, and for one across sites."""
    for seed, name in enumerate(SITES):
        for split, number in (('train', 5 + seed), ('test', 2 + seed)):
            make_images(data / name, split, number, seed=2 * seed + (split == 'test'))
            for kind in ('img_dir', 'ann_dir'):
                joined = data / kind / split / name
                joined.parent.mkdir(parents=True, exist_ok=True)
                joined.symlink_to(data / name / kind / split)


def site_yaml(data: Path, name: str, **changes) -> dict:
    """The content of a site's site.yaml."""
    folders = {part: dict(images=str(data / name / 'img_dir' / split), masks=str(data / name / 'ann_dir' / split))
               for part, split in (('train', 'train'), ('val', 'test'))}
    return {**folders, **changes}


def make_kits(folder: Path, data: Path, changes: dict[str, dict] | None = None) -> Path:
    """Kits without certificates, for trainers that no network reaches."""
    (folder / 'server' / 'run').mkdir(parents=True)
    (folder / 'server' / 'federation.json').write_text(json.dumps(dict(sites=SITES)))
    for name in SITES:
        kit = folder / 'sites' / name
        (kit / 'startup').mkdir(parents=True)
        (kit / 'startup' / 'fed_client.json').write_text(json.dumps(dict(client=dict(fqsn=name))))
        (kit / 'site.yaml').write_text(yaml.safe_dump(site_yaml(data, name, **(changes or {}).get(name, {}))))
    return folder


class DirectJob:
    """Carries messages to trainers in this process, which do a task as soon as it is asked for.

    Args:
        kits (Path): What :func:`make_kits` gave.
    """

    def __init__(self, kits: Path) -> None:
        self.desks, self.trainers, self._lock = {}, {}, threading.Lock()
        #: Called with (site, question) before each: raises NoWay to lose it.
        self.lose = lambda site, head: None
        #: Likewise, with the answer, which is then lost.
        self.lose_answer = lambda site, head, reply: None
        for name in SITES:
            self.begin(kits, name)

    def begin(self, kits: Path, name: str) -> None:
        """Start a site's trainer, or start it again."""
        kit = kits / 'sites' / name
        self.desks[name] = Desk(Spool(kit / 'run' / 'spool'), name)
        self.trainers[name] = SiteTrainer(name, SiteConfig.read(kit / 'site.yaml'), kit / 'run' / 'runs')

    def start(self) -> None:
        pass

    def close(self) -> None:
        pass

    def ask(self, site: str, head: dict, body: bytes = b'', timeout: float = 30.0) -> tuple[dict, bytes]:
        self.lose(site, head)
        with self._lock:  # one model trains at a time: torch has one stream of random numbers
            desk = self.desks[site]
            reply, content = desk.answer(json.loads(json.dumps(head)), body)
            while not desk.tasks.empty():
                do_and_finish(self.trainers[site], desk.tasks.get(), desk)
        self.lose_answer(site, head, reply)
        return json.loads(json.dumps(reply)), content


__all__ = ['SITES', 'DirectJob', 'NoWay', 'make_kits', 'make_sites', 'site_yaml']
