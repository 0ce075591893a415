"""One data set and one pool of workers that serve all clients."""
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import tee
from typing import NamedTuple

from mmseg.datasets.transforms import GenerateEdge, PackSegInputs
from torch import Generator
from torch.utils.data import DataLoader, Dataset, Sampler

from fedseg_mm.datasets.client_sample import ClientSample
from fedseg_mm.datasets.label_scan import plain_datasets
from fedseg_mm.datasets.labels import VOID
from fedseg_mm.datasets.partition import ClientShard
from fedseg_mm.datasets.transforms.mask_to_client import MaskToClient
from fedseg_mm.datasets.transforms.remap_unannotated import RemapUnannotated
from fedseg_mm.errors import FedSegError, reason
from fedseg_mm.seeding import derive_seed, derived_generator, seeded

#: Options of a DataLoader that it takes only with worker processes.
WORKER_OPTIONS = ('persistent_workers', 'prefetch_factor', 'multiprocessing_context', 'timeout')


class SampleKey(NamedTuple):
    """What a worker needs to know to load one image for one client.

    Args:
        image (int): The image, as an index into the data set.
        classes (tuple[int]): The client's annotated classes.
        seed (int): Seed of the augmentations.
        unannotated (int, optional): The client's own label value for
            "unannotated". Defaults to None.
        relabelled (tuple[int], optional): Which class the client labels each
            class as, before it is masked. Defaults to None: as it is.
    """
    image: int
    classes: tuple[int, ...]
    seed: int
    unannotated: int | None = None
    relabelled: tuple[int, ...] | None = None


class ClientDataset(Dataset):
    """A data set as its clients see it: masked to their annotated classes.

    Two transforms are put into the data set's own pipeline: right after the
    labels are loaded, a client's own value for "unannotated" is marked; right
    before they are packed (or an edge map is made of them), they are masked.

    Args:
        dataset (BaseDataset or ConcatDataset): MMSegmentation's data set.

    Raises:
        FedSegError: The pipeline mixes images or packs none, or void is not 255.
    """

    def __init__(self, dataset) -> None:
        for part in plain_datasets(dataset):
            if getattr(part, 'ignore_index', VOID) != VOID:
                raise FedSegError(f'{type(part).__name__} has ignore_index={part.ignore_index}, but void must be '
                                  f'{VOID}')
            self._mask_before_packing(part.pipeline.transforms, type(part).__name__)
            mark_after_loading(part.pipeline.transforms)
        self.dataset = dataset
        self.metainfo = dataset.metainfo

    @staticmethod
    def _mask_before_packing(transforms: list, name: str) -> None:
        """Put the mask right before the label is packed, or made an edge map of."""
        for transform in _nested(transforms):
            if hasattr(transform, 'get_indices'):
                raise FedSegError(f'the transform {type(transform).__name__} of {name} mixes images and would pull '
                                  "other clients' images into a client's training: remove it")
        last = [i for i, transform in enumerate(transforms) if isinstance(transform, (PackSegInputs, GenerateEdge))]
        if not last:
            raise FedSegError(f'the train pipeline of {name} has no PackSegInputs, before which labels are masked to '
                              'their client')
        if not any(isinstance(transform, MaskToClient) for transform in transforms):
            transforms.insert(last[0], MaskToClient(required=True))

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: SampleKey) -> dict:
        part, index = part_of(self.dataset, key.image)
        info = part.get_data_info(index)
        info['annotated_classes'] = key.classes
        info['unannotated_value'] = key.unannotated
        info['relabelled_classes'] = key.relabelled
        try:
            with seeded(key.seed):
                sample = part.pipeline(info)
        except FedSegError:
            raise
        except Exception as error:
            raise FedSegError(f'the train pipeline fails on the image {info.get("img_path")}: '
                              f'{reason(error, typed=True)}') from error
        if sample is None:
            raise FedSegError(f'the train pipeline rejects the image {info.get("img_path")}')
        sample['data_samples'] = ClientSample.of(sample['data_samples'])
        sample['data_samples'].set_metainfo(dict(annotated_classes=key.classes))
        return sample


def mark_after_loading(transforms: list) -> None:
    """Have a client's own value for "unannotated" marked right after the labels are loaded."""
    if any(isinstance(transform, RemapUnannotated) for transform in transforms):
        return
    loading = [i + 1 for i, transform in enumerate(transforms) if getattr(transform, 'with_seg', False)]
    masking = [i for i, transform in enumerate(transforms) if isinstance(transform, MaskToClient)]
    transforms.insert((loading or masking)[-1], RemapUnannotated())


def part_of(dataset, index: int):
    """The plain data set that an image of a joined one is in, and its index there."""
    while hasattr(dataset, 'datasets'):  # ConcatDataset, perhaps of ConcatDatasets
        place, index = dataset._get_ori_dataset_idx(index)
        dataset = dataset.datasets[place]
    return dataset, index


def _nested(transforms: Sequence) -> Iterator:
    """The transforms and those that they hold (RandomApply, RandomChoice, …)."""
    for transform in transforms:
        if isinstance(transform, (list, tuple)):
            yield from _nested(transform)
        else:
            yield transform
            yield from _nested(list(getattr(transform, 'transforms', None) or []))


class Pass(NamedTuple):
    """One pass over a client's images.

    Args:
        round (int): The round, from 0.
        client (int): The client's id.
        survey (bool): Whether each image is to be seen once, in batches of
            any size, instead of the local epochs of a training.
    """
    round: int
    client: int
    survey: bool = False


class ClientBatchSampler(Sampler):
    """Batches of the passes in :attr:`plan`, one after the other.

    The order of a client's images and the seeds of their augmentations follow
    from (seed, round, client, local epoch, position), and from nothing else.

    A client with fewer images than a batch trains one smaller batch per local
    epoch. Batches of one image are never made, because batch normalisation
    cannot train on them: a client's only image is seen twice per local epoch,
    with two augmentations, and a last batch of one image is dropped.

    Args:
        shards (Sequence[ClientShard]): What each client holds.
        batch_size (int): Images per batch.
        local_epochs (int): Passes of a client over its images per round.
        drop_last (bool): Whether to drop a last, smaller batch.
    """
    #: MMEngine's DistSamplerSeedHook looks for it; clients' batches need no set_epoch.
    sampler = None

    def __init__(self, shards: Sequence[ClientShard], batch_size: int, local_epochs: int, drop_last: bool) -> None:
        self.shards = shards
        self.batch_size = batch_size
        self.local_epochs = local_epochs
        self.drop_last = drop_last
        self.seed = 0
        self.plan: Iterable[Pass] = ()
        #: Which class a client labels each class as; None where labels are true.
        self.relabel: Callable[[int], tuple[int, ...] | None] = _true_labels

    def __len__(self) -> int:
        """1: to MMEngine, a round is one iteration of the training loop."""
        return 1

    def __iter__(self) -> Iterator[list[SampleKey]]:
        return self._batches(self.plan)

    def _batches(self, plan: Iterable[Pass]) -> Iterator[list[SampleKey]]:
        for round, client, survey in plan:
            if survey:
                yield from self._survey_batches(round, client)
                continue
            for epoch in range(self.local_epochs):
                yield from self._epoch_batches(round, client, epoch)

    def _survey_batches(self, round: int, client: int) -> Iterator[list[SampleKey]]:
        relabelled = self.relabel(client)
        keys = [SampleKey(image, classes, derive_seed(self.seed, 'survey', round, client, position), unannotated,
                          relabelled)
                for position, (image, classes, unannotated) in enumerate(self.shards[client].images())]
        for start in range(0, len(keys), self.batch_size):
            yield keys[start:start + self.batch_size]

    def _epoch_batches(self, round: int, client: int, epoch: int) -> Iterator[list[SampleKey]]:
        images = self.shards[client].images()
        order = derived_generator(self.seed, 'order', round, client, epoch).permutation(len(images)).tolist()
        if len(order) == 1 and self.batch_size > 1:
            order = order * 2
        relabelled = self.relabel(client)
        keys = [
            SampleKey(images[place][0], images[place][1],
                      derive_seed(self.seed, 'sample', round, client, epoch, position), images[place][2], relabelled)
            for position, place in enumerate(order)
        ]
        for batch in range(self._epoch_length(client)):
            yield keys[batch * self.batch_size:(batch + 1) * self.batch_size]

    def _epoch_length(self, client: int) -> int:
        images = len(self.shards[client].indices)
        whole, rest = divmod(images, self.batch_size)
        keep_rest = whole == 0 or (rest > 1 and not self.drop_last)
        return whole + int(rest > 0 and keep_rest)

    def num_batches(self, client: int, survey: bool = False) -> int:
        """Batches of one pass: over all local epochs of a training, or of a survey."""
        if survey:
            return -(-len(self.shards[client].indices) // self.batch_size)
        return self.local_epochs * self._epoch_length(client)


def _true_labels(client: int) -> None:
    return None


class ClientStream:
    """Hands out the batches of any client, from one persistent loader.

    Args:
        dataset (ClientDataset): The images of all clients.
        batch_sampler (ClientBatchSampler): Its batches.
        num_workers (int): Processes that load images. Defaults to 0.
        collate_fn (Callable): Joins samples to a batch.
        loader_args: Further arguments of torch's DataLoader.
    """

    def __init__(self, dataset: ClientDataset, batch_sampler: ClientBatchSampler, num_workers: int,
                 collate_fn: Callable, **loader_args) -> None:
        self.batch_sampler = batch_sampler
        if not num_workers:
            loader_args = {name: value for name, value in loader_args.items() if name not in WORKER_OPTIONS}
        self.loader = DataLoader(
            dataset, batch_sampler=batch_sampler, num_workers=num_workers, collate_fn=collate_fn,
            persistent_workers=num_workers > 0,
            # its own generator: the loader draws from the global one otherwise, as often as it has workers
            generator=Generator(), **loader_args)
        #: Seconds that training waited for batches; set it to 0 where counting is to start.
        self.waited = 0.0
        #: Whether all batches were those of the last :meth:`plan` so far.
        self.is_planned = False
        self._expected: Iterator[Pass] = iter(())
        self._iterator: Iterator = iter(())

    def plan(self, passes: Iterable[Pass]) -> None:
        """Announce the passes to come, so that workers load them ahead.

        Args:
            passes (Iterable[Pass]): Read only as far as is loaded ahead: it
                may be all of a run's.
        """
        self.batch_sampler.plan, self._expected = tee(passes)
        self._iterator = iter(self.loader)
        self.is_planned = True

    def batches(self, wanted: Pass) -> Iterator:
        """The batches of one pass.

        Raises:
            FedSegError: An image cannot be loaded; names the file.
        """
        if next(self._expected, None) != wanted:
            self.plan([wanted])
            next(self._expected)
            self.is_planned = False
        # until its last batch, the loader stands in the middle of this pass: who leaves it gets nothing of it later
        expected, self._expected = self._expected, iter(())
        for left in reversed(range(self.batch_sampler.num_batches(wanted.client, wanted.survey))):
            start = time.perf_counter()
            try:
                batch, sentence = next(self._iterator), None
            except FedSegError as error:  # a worker's traceback is wrapped around the sentence
                sentence = str(error).strip().rsplit('FedSegError: ', 1)[-1]
                error.__traceback__ = None  # its frames hold on to the workers, which must end now
            if sentence is not None:
                self.close()
                raise FedSegError(sentence)
            self.waited += time.perf_counter() - start
            if not left:
                self._expected = expected
            yield batch

    def close(self) -> None:
        """End the workers; a later round starts new ones."""
        self.is_planned = False
        self._expected = self._iterator = iter(())
        self.loader._iterator = None  # where torch keeps persistent workers
