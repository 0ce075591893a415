"""Clients are sites of their own, each with its images, and NVFLARE carries the messages."""
import atexit
import hashlib
import json
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from mmengine.dist import get_world_size
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fedseg_mm.checkpoints import load_weights_only
from fedseg_mm.datasets import ClientShard, Partition, Partitioner, PartitionSummary
from fedseg_mm.engine.backends.backend import Backend
from fedseg_mm.errors import Faults, FedSegError
from fedseg_mm.registry import BACKENDS, PARTITIONERS
from fedseg_mm.resume import checkpoints_of, written_last
from fedseg_mm.silos.answers import confusion_matrix, description, said, usable_update
from fedseg_mm.silos.kits import sites_of
from fedseg_mm.silos.run_config import class_names, hooks_of_others, sections_for_sites
from fedseg_mm.silos.site_link import Output, SiteLink
from fedseg_mm.structures import Broadcast, ClientFailure, ClientUpdate
from fedseg_mm.structures.messages import layout_of, pack_tensors
from fedseg_mm.validation import check_number
from fedseg_mm.version import __version__

if TYPE_CHECKING:
    from fedseg_mm.federation import Federation
    from fedseg_mm.silos.job import RelayJob

#: What a checkpoint keeps of what sites tell.
_TOLD = ('images', 'val_images', 'annotates', 'unannotated', 'pixels', 'void', 'unannotated_pixels')
#: Seconds that a message may be under way beside the training itself, under ``client_time_limit``.
GRACE = 60.0


@PARTITIONERS.register_module()
class SitesPartitioner(Partitioner):
    """Every site is a client, with the images and classes that its own site.yaml names.

    ``fedseg_mm silo train`` puts it into the config; it goes with
    :class:`NVFlareBackend` alone.
    """

    def __init__(self) -> None:
        super().__init__(1)

    def make_clients(self, presence, image_names, class_names, rng):
        raise FedSegError('SitesPartitioner leaves the images to the sites, which only NVFlareBackend reaches: choose '
                          'another federated.partitioner to train in one place')


class ImagesElsewhere(Dataset):
    """What MMEngine takes for data whose images other machines have: one iteration is a round, or an evaluation."""

    def __init__(self, classes: Sequence[str] = ()) -> None:
        self.metainfo = dict(classes=tuple(classes))

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        return index


@BACKENDS.register_module()
class NVFlareBackend(Backend):
    """Silos over a network: each site trains on its own images, and this process has none.

    NVFLARE brings mutual TLS, certificates, and a policy at every site; its
    jobs only carry messages between this process and the sites' trainers. A
    job that ends is submitted again, a site that comes back is taken in
    again, and a task that was lost on the way is asked for again, with the
    same result.

    Args:
        kits (str): The folder that ``fedseg_mm silo provision`` made, with
            ``server/`` and ``admin/``.
        site_timeout (float): Seconds without an answer after which a round
            goes on without a site. Defaults to 120.
        client_time_limit (float, optional): Seconds after which a site is
            left out of the round, looked at after each of its steps; an
            evaluation waits for no site much longer either. Defaults to None:
            as long as it takes.

    Raises:
        FedSegError: NVFLARE is not installed, or a value cannot be used.
    """
    val_loop = 'SilosValLoop'

    def __init__(self, kits: str, site_timeout: float = 120.0, client_time_limit: float | None = None) -> None:
        check_number('federated.backend.site_timeout', site_timeout, above=0)
        if client_time_limit is not None:
            check_number('federated.backend.client_time_limit', client_time_limit, above=0)
        self.server, self.admin = Path(kits) / 'server', Path(kits) / 'admin'
        self.site_timeout, self.client_time_limit = site_timeout, client_time_limit
        self.names = sites_of(self.server)
        #: Rounds behind what each client keeps, of those that keep something.
        self.states: dict[int, int] = {}
        self._before: dict[int, int] = {}
        self._checkpointed: tuple[int, ...] = (0, )
        self._away: set[int] = set()
        self._closing = threading.Event()

    # --- before training ----------------------------------------------------
    def setup(self, runner, dataloader: dict, federation: 'Federation') -> None:
        self._refuse(federation)
        self.runner, self.federation = runner, federation
        classes = class_names(dataloader['dataset'])
        self.job = self.new_job(runner.logger.info)
        self.links = [SiteLink(name, self.job, self.site_timeout) for name in self.names]
        atexit.register(self.job.close)  # however the training ends
        self.job.start()
        try:
            self.run, before, known = self._run_and_sites()
            self._away = self._wait_for_sites(known)
            config = sections_for_sites(runner.cfg, runner.cfg.federated, classes, runner.seed)
            told = self._set_up(config, classes, before, known)
            summary = self._summary(classes, told)
            federation.take_clients(summary)
        except BaseException:
            self.job.close()
            raise
        self.told = told
        if hooks := hooks_of_others(runner.cfg):
            verb, pronoun = ('runs', 'it') if len(hooks) == 1 else ('run', 'them')
            runner.logger.warning(f'custom_hooks: {" and ".join(hooks)} {verb} at the server alone, and sites train '
                                  f'without {pronoun}.')
        if all('pixels' in site for site in told):
            for sentence in summary.warnings(dataloader['batch_size']):
                runner.logger.warning(sentence)
        self._loader = DataLoader(ImagesElsewhere(classes))

    def new_job(self, say: Callable[[str], None]) -> 'RelayJob':
        """What carries the messages.

        Args:
            say (Callable): Logs a sentence.

        Raises:
            FedSegError: NVFLARE is not installed.
        """
        try:
            from fedseg_mm.silos.job import RelayJob
        except ImportError as error:
            raise FedSegError("NVFlareBackend needs NVFLARE: pip install 'fedseg_mm[silos]'") from error
        return RelayJob(self.server, self.admin, say)

    def _refuse(self, federation: 'Federation') -> None:
        algorithm = federation.algorithm
        name = type(algorithm).__name__
        if get_world_size() > 1:
            raise FedSegError('NVFlareBackend runs in one process at the server: leave out --launcher')
        if algorithm.is_bound or algorithm.pools_clients:
            raise FedSegError(f'{name} is a bound without a federation, which silos are: choose another '
                              'federated.algorithm, or train in one place')
        if algorithm.batch_norm.recalibrates:
            raise FedSegError("batch_norm='recalibrate' goes through the images of the cohort once more, which silos "
                              "do not do: use 'average', 'local_statistics' or 'local'")
        if federation.hostile.attacks:
            raise FedSegError('federated.attacks is for measurements in one place, and no site would follow: leave it '
                              'out with NVFlareBackend')

    def _wait_for_sites(self, known: Mapping[str, dict]) -> set[int]:
        """Until all sites answer, or those that are not known from before; says for whom it waits.

        Args:
            known (Mapping[str, dict]): What sites have told when the run
                began, by their names.

        Returns:
            set[int]: Those that are away.
        """
        waited_for, started = None, time.monotonic()
        while missing := [link.name for link in self.links if not link.is_here()]:
            waited = time.monotonic() - started
            if waited > self.site_timeout and set(missing) <= set(known):
                self.runner.logger.warning(f'{", ".join(missing)} are away: the training goes on without them until '
                                           'they are back.')
                break
            if missing != waited_for and waited > 10:
                waited_for = missing
                self.runner.logger.info(f'Waiting for {", ".join(missing)}: `silo start` runs a site; '
                                        f'{len(self.links) - len(missing)} of {len(self.links)} sites are here.')
            time.sleep(0.5)
        return {client for client, name in enumerate(self.names) if name in missing}

    def _run_and_sites(self) -> tuple[str, dict[int, dict], dict[str, dict]]:
        """What sites call this run, what each client brings from another one, and what sites told at its beginning.

        The name is that of one work dir: a run that goes on from a checkpoint
        in another, or from one that others in its own have left behind, has a
        name of its own, so that neither touches what clients keep for the
        other.

        Raises:
            FedSegError: The checkpoint does not say.
        """
        runner = self.runner
        place = hashlib.sha256(str(Path(runner.work_dir).resolve()).encode()).hexdigest()[:8]
        new = f'{time.strftime("%Y%m%d_%H%M%S")}_{secrets.token_hex(4)}_{place}'
        if not runner._resume:
            return new, {}, {}
        content = load_weights_only(runner._load_from, 'cpu', mmap=True)
        federated = content.get('federated') or {}
        silos = federated.get('silos')
        if not isinstance(silos, dict):
            raise FedSegError(f'{self.runner._load_from} is not of a training across sites, who would not know what to '
                              'go on with: start anew from its weights with `load_from=CHECKPOINT`')
        states, rounds = federated['clients'], content['meta']['epoch']
        if silos['run'].endswith(f'_{place}') and not any(
                state > rounds for file in checkpoints_of(runner.cfg, runner.work_dir)
                for state in file.clients.values()):
            return silos['run'], {}, silos['told']
        return new, {client: dict(run=silos['run'], state=state) for client, state in states.items()}, silos['told']

    def _set_up(self, config: dict, classes: tuple[str, ...], before: Mapping[int, dict],
                known: Mapping[str, dict]) -> list[dict]:
        """Have all sites that are here build the run; what all tell, or have told.

        Raises:
            FedSegError: Sites cannot; a line for each.
        """
        content = [json.dumps(dict(version=__version__, run=self.run, client=client, clients=len(self.links),
                                   before=before.get(client), config=config), sort_keys=True).encode()
                   for client in range(len(self.links))]
        faults, told = Faults(), []
        with ThreadPoolExecutor(len(self.links)) as pool:
            try:
                futures = {}
                for client, (link, one) in enumerate(zip(self.links, content)):
                    if client in self._away:
                        link.prepare({}, dict(run=one))
                    else:
                        futures[link.name] = pool.submit(link.set_up, {}, dict(run=one), self._closing)
                for link in self.links:
                    if (future := futures.get(link.name)) is None:
                        told.append(dict(known[link.name], parameters=None))
                        continue
                    try:
                        told.append(description(link.name, json.loads(future.result().content), classes))
                    except ConnectionError as error:
                        faults.add(str(error))
                    except Exception as error:  # whatever a site may send
                        faults.add(f'the site {link.name} cannot take part: {said(error)}')
            finally:
                self._closing.set()
        faults.report()
        return told

    def _summary(self, classes: tuple[str, ...], told: list[dict]) -> PartitionSummary:
        """What the sites tell, as if it had been found here: a site's pixels are all put on its first image."""
        shards, counts, start = [], [], 0
        for name, site in zip(self.names, told):
            shards.append(ClientShard(tuple(range(start, start + site['images'])),
                                      tuple(sorted(classes.index(one) for one in site['annotates'])), name,
                                      site['unannotated']))
            pixels = np.zeros((site['images'], len(classes) + 2), np.int64)
            pixels[:1] = [*site.get('pixels', [0] * len(classes)), site.get('unannotated_pixels', 0),
                          site.get('void', 0)]
            counts.append(pixels)
            start += site['images']
        pixels = np.concatenate(counts)
        names = [f'{name}/{number}' for name, site in zip(self.names, told) for number in range(site['images'])]
        partition = Partition(tuple(shards), start, len(classes), dict(type='SitesPartitioner'))
        return PartitionSummary(partition, names, classes, pixels[:, :-2], pixels[:, -2], pixels[:, -1])

    @property
    def loader(self) -> DataLoader:
        return self._loader

    def start(self, runner, federation: 'Federation', rounds: int) -> None:
        layout = layout_of(federation.algorithm.shared_weights)
        for link, site in zip(self.links, self.told):
            if site['parameters'] not in (None, layout):  # of one that is away, it shows when it is back
                raise FedSegError(f'{link.name} builds another model of the same config than the server: install the '
                                  'same versions of mmsegmentation, mmengine and mmcv at both ends')
        self._checkpointed = (runner.epoch, )
        self._last_checkpoint = written_last(self.runner.work_dir)
        for left in (self.server / 'run').glob('updates_*'):  # by a training that was killed
            shutil.rmtree(left, ignore_errors=True)
        self._updates = tempfile.TemporaryDirectory(dir=self.server / 'run', prefix='updates_')

    # --- rounds -------------------------------------------------------------
    def train(self, cohort: Sequence[int], broadcast: Broadcast) -> Iterator[ClientUpdate | ClientFailure]:
        self._note_checkpoint(broadcast.round)
        self._before = dict(self.states)
        away = self._wait_for_enough(cohort)
        weights, rest = pack_tensors(broadcast.weights), replace(broadcast, weights={}).to_bytes()
        unshared = pack_tensors(broadcast.unshared) if broadcast.unshared else None
        self.waited = 0.0
        self._closing.clear()
        pool = ThreadPoolExecutor(max(1, len(cohort)))
        try:
            futures = {client: pool.submit(self._train_one, client, broadcast.round, weights, rest, unshared)
                       for client in cohort if client not in away}
            for client in cohort:  # in this order, which the sums of the aggregator depend on
                self.runner.call_hook('before_client', client=client)
                if client in away:
                    yield ClientFailure(client, f'{self.names[client]} is away')
                else:
                    yield self._take(client, futures[client], broadcast)
        finally:
            self._closing.set()
            pool.shutdown(wait=True, cancel_futures=True)

    def _train_one(self, client: int, round: int, weights: bytes, rest: bytes, unshared: bytes | None) -> tuple:
        """In a thread of its own: have one site train, and put its update on the disk."""
        state = self.states.get(client)
        inputs = dict(weights=weights, rest=rest)
        if unshared is not None and state is None:
            inputs['unshared'] = unshared
        args = dict(round=round, state=state, checkpointed=list(self._checkpointed), time_limit=self.client_time_limit)
        started = time.perf_counter()
        output: Output = self.links[client].do('train', args, inputs, self._limit, self._closing)
        path = Path(self._updates.name) / str(client)
        path.write_bytes(output.content)
        return path, bool(output.told.get('kept')), time.perf_counter() - started

    @property
    def _limit(self) -> float | None:
        """Seconds for which one task of a site is waited for."""
        return None if self.client_time_limit is None else self.client_time_limit + GRACE

    def _take(self, client: int, future: Future, broadcast: Broadcast) -> ClientUpdate | ClientFailure:
        """A client's update, or why there is none."""
        try:
            path, kept, seconds = future.result()
            content = path.read_bytes()
            path.unlink()
            update = usable_update(content, self.names[client], client, self.told[client]['images'], broadcast,
                                   self.federation.algorithm)
        except ConnectionError as error:
            self._away.add(client)
            return ClientFailure(client, str(error))
        except OSError:  # this machine's own disk
            raise
        except Exception as error:  # whatever a site may send, it costs no more than its own update
            return ClientFailure(client, said(error))
        self._away.discard(client)
        if kept:
            self.states[client] = broadcast.round + 1
        return replace(update, seconds=seconds)

    def _wait_for_enough(self, cohort: Sequence[int]) -> set[int]:
        """Of a cohort, the clients that are away; waits while too few of them are here for a round."""
        away, said = self._away & set(cohort), False
        needed = min(self.federation.min_updates, len(cohort))
        while away:
            away = {client for client in away if not self.links[client].is_here()}
            if len(cohort) - len(away) >= needed:
                break
            if not said:
                self.runner.logger.warning(f'{", ".join(self.names[client] for client in sorted(away))} are away, and '
                                           f'a round needs {needed} of its cohort: waiting for them.')
                said = True
            time.sleep(1.0)
            self.runner.train_loop.stop.check()
        self._away = (self._away - set(cohort)) | away
        return away

    # --- evaluation ---------------------------------------------------------
    def evaluate(self, weights: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        """Have all sites that can evaluate the global model on their own images.

        Args:
            weights (Mapping[str, Tensor]): The global model's shared weights.

        Returns:
            dict[str, np.ndarray]: Name of the site -> pixels by truth and
            prediction, (C, C).

        Raises:
            FedSegError: No site has images for it.
        """
        if not any(site['val_images'] for site in self.told):
            raise FedSegError('no site has images to evaluate the global model on: name some in `val` of a site.yaml, '
                              'or train with val_cfg=None val_dataloader=None val_evaluator=None')
        algorithm = self.federation.algorithm
        content = pack_tensors(weights)
        unshared = pack_tensors({name: algorithm.weights[name] for name in algorithm.unshared}) \
            if algorithm.unshared else None
        self._away = {client for client in self._away if not self.links[client].is_here()}
        sites = [client for client, site in enumerate(self.told) if site['val_images']]
        for client in self._away & set(sites):
            self.runner.logger.warning(f'The evaluation goes without {self.names[client]}, which is away.')
        sites = [client for client in sites if client not in self._away]
        found: dict[str, np.ndarray] = {}
        self._closing.clear()
        with ThreadPoolExecutor(max(1, len(sites))) as pool:
            futures = [pool.submit(self.links[client].do, 'evaluate', dict(
                round=self.runner.epoch, state=self.states.get(client)), dict(
                weights=content, **(dict(unshared=unshared) if unshared and client not in self.states else {})),
                self._limit, self._closing) for client in sites]
            try:
                for client, future in zip(sites, futures):
                    try:
                        found[self.names[client]] = confusion_matrix(
                            self.names[client], json.loads(future.result().content),
                            len(self.federation.summary.class_names))
                    except ConnectionError as error:
                        self._away.add(client)
                        self.runner.logger.warning(f'The evaluation goes without {self.names[client]}: {error}')
                    except Exception as error:  # whatever a site may send
                        self.runner.logger.warning(f'The evaluation goes without {self.names[client]}: {said(error)}')
            finally:
                self._closing.set()
        return found

    # --- checkpoints --------------------------------------------------------
    def _note_checkpoint(self, round: int) -> None:
        """See whether there is a checkpoint of the rounds so far, whose clients' states sites must then keep."""
        if (named := written_last(self.runner.work_dir)) != self._last_checkpoint:
            # and of the one before, in case that the last one is damaged
            self._last_checkpoint, self._checkpointed = named, (*self._checkpointed[-1:], round)

    def state_dict(self) -> dict:
        return dict(clients=dict(self.states), clients_folder='clients', silos=dict(run=self.run, told={
            name: {key: value for key, value in site.items() if key in _TOLD}
            for name, site in zip(self.names, self.told)}))

    def load_state_dict(self, state: dict) -> None:
        self.states = {int(client): int(rounds) for client, rounds in state['clients'].items()}

    def abandon_round(self, rounds: int) -> None:
        self.states = dict(self._before)

    def traffic(self) -> dict[str, tuple[int, int]]:
        """Bytes that have gone down to each site, and come up from it."""
        return {link.name: (link.sent, link.received) for link in self.links}

    def close(self) -> None:
        for name, (down, up) in self.traffic().items():
            self.runner.logger.info(f'{name}: {down / 1e6:.1f} MB went down and {up / 1e6:.1f} MB came up.')
        self._updates.cleanup()
        self.job.close()
