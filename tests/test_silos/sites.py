"""Two sites for the tests: their images, their kits, and a way to their trainers without a network."""
import json
import threading
from pathlib import Path

import yaml
from mmengine.config import Config

from fedseg_mm.config import federate
from fedseg_mm.engine.backends import NVFlareBackend
from fedseg_mm.engine.tool_runner import ToolRunner
from fedseg_mm.silos.desk import Desk
from fedseg_mm.silos.site_config import SiteConfig
from fedseg_mm.silos.site_trainer import SiteTrainer
from fedseg_mm.silos.spool import Spool
from fedseg_mm.silos.trainer_process import do_and_finish
from tests.conftest import forget_runs, make_images, tiny_config

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


def rounds_of(work_dir) -> list[dict]:
    return [json.loads(line) for file in sorted(work_dir.glob('*/vis_data/rounds.json'))
            for line in file.read_text().splitlines()]


def reasons(work_dir) -> dict[int, str]:
    """Round -> why a client's update is missing."""
    return {line['round']: client['reason'] for line in rounds_of(work_dir) for client in line['clients']
            if 'reason' in client}


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


def one_place(sites, work_dir, **changes) -> Config:
    return tiny_config(sites, work_dir, **{
        'federated.partitioner': dict(type='GroupPartitioner', pattern=r'(north|south)/', classes_per_client=2,
                                      _delete_=True),
        'federated.clients_per_round': 2, 'train_cfg.val_interval': 1, **changes})


def train(cfg: Config) -> ToolRunner:
    federate(cfg)
    forget_runs()
    runner = ToolRunner.from_cfg(cfg)
    runner.train()
    return runner


def evaluations(work_dir) -> list[dict]:
    """All figures of all evaluations, that of every class included."""
    lines = [json.loads(line) for file in work_dir.glob('*/vis_data/scalars.json')
             for line in file.read_text().splitlines()]
    # IoUMetric's own sums are float32's
    figures = ('step', 'mIoU', 'aAcc', 'mAcc', 'mIoU_annotated')
    found = [{key: round(value, 2) for key, value in line.items() if key in figures or key.startswith('IoU/')}
             for line in lines if 'mIoU' in line or any(key.startswith('IoU/') for key in line)]
    assert len(found) >= 3 and any(key.startswith('IoU/') for line in found for key in line)
    return found


def annotated(work_dir) -> dict[str, dict]:
    """What each client annotates, by the manifest of a training."""
    clients = json.loads((work_dir / 'partition.json').read_text())['clients']
    return {client['client']: dict(annotates=client['classes']) for client in clients}


def across_sites(sites, kits, work_dir, monkeypatch, job=None, **changes) -> Config:
    job = job or DirectJob(kits)
    monkeypatch.setattr(NVFlareBackend, 'new_job', lambda self, say: job)
    return one_place(sites, work_dir, **{
        'federated.partitioner': dict(type='SitesPartitioner', _delete_=True),
        'federated.backend': dict(type='NVFlareBackend', kits=str(kits)), **changes})
