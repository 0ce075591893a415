"""Evaluates a federation's models for each of its clients."""
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.dist import get_rank, get_world_size
from mmengine.evaluator import Evaluator
from mmengine.runner.amp import autocast
from prettytable import PrettyTable
from torch.utils.data import DataLoader, Dataset, Sampler

from fedseg_mm.algorithms.fedavg import load_weights
from fedseg_mm.datasets import ClientShard, PartitionSummary
from fedseg_mm.datasets.client_stream import mark_after_loading, part_of
from fedseg_mm.datasets.label_scan import plain_datasets
from fedseg_mm.engine.client_state_store import ClientStateStore
from fedseg_mm.errors import FedSegError
from fedseg_mm.evaluation.confusion_matrix import ConfusionMatrix, mean_iou, pixel_accuracy, shown_percent
from fedseg_mm.files import write_json
from fedseg_mm.resume import clients_folder, kept_rounds

#: Clients that the console shows a line of.
MOST_LINES = 60
#: Figures of a client, and what the table calls them.
COLUMNS = {'mIoU': 'mIoU', 'mIoU_annotated': 'annotated', 'mIoU_never_annotated': 'never', 'aAcc': 'aAcc'}


@dataclass
class ClientFigures:
    """One client's evaluation, in percent; None where there is nothing to evaluate.

    ``mIoU`` is over all classes, ``mIoU_annotated`` over those that the
    client annotates, ``mIoU_never_annotated`` over the others, ``aAcc`` over
    all pixels.

    Args:
        client (str): Its name.
        images (int): Images that it holds.
        annotated (list[str]): Its annotated classes.
        own_model (bool): Whether it was evaluated with weights of its own,
            or with the global model.
        own_images (dict): The figures on its own training images.
        test_images (dict): The figures on the test images.
    """
    client: str
    images: int
    annotated: list[str]
    own_model: bool
    own_images: dict[str, float | None] = field(default_factory=dict)
    test_images: dict[str, float | None] = field(default_factory=dict)


class ClientImages(Dataset):
    """The clients' images as they are evaluated: with all labels that their files have, client after client.

    Args:
        dataset (BaseDataset or ConcatDataset): The training data, with the
            pipeline of the test images.
        clients (Sequence[ClientShard]): Who holds what.
    """

    def __init__(self, dataset, clients: Sequence[ClientShard]) -> None:
        for part in plain_datasets(dataset):
            mark_after_loading(part.pipeline.transforms)
        self.dataset = dataset
        self.images = [(index, client, shard.unannotated) for client, shard in enumerate(clients)
                       for index in shard.indices]
        self.starts = np.cumsum([0, *(len(shard.indices) for shard in clients)]).tolist()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: int) -> dict:
        index, client, unannotated = self.images[place]
        part, index = part_of(self.dataset, index)
        info = part.get_data_info(index)
        info['unannotated_value'] = unannotated
        sample = part.pipeline(info)
        sample['data_samples'].set_metainfo(dict(client=client))
        return sample


class PlacesSampler(Sampler):
    """Hands out what :attr:`places` names, to each process as many: the last ones may be handed out twice."""

    def __init__(self, places: Sequence[int]) -> None:
        self.places = places

    def _share(self) -> int:
        return -(-len(self.places) // get_world_size())

    def __len__(self) -> int:
        return self._share()

    def __iter__(self) -> Iterator[int]:
        for i in range(self._share()):
            yield self.places[(i * get_world_size() + get_rank()) % len(self.places)]


class PerClientEvaluation:
    """Evaluates the global model, or where clients keep weights each one's own, on its images and the test images.

    Args:
        runner (Runner): MMEngine's runner, with the checkpoint's weights
            loaded.
        dataset (BaseDataset or ConcatDataset): The training data, with the
            pipeline of the test images.
        summary (PartitionSummary): Who holds what.
    """

    def __init__(self, runner, dataset, summary: PartitionSummary) -> None:
        self.runner = runner
        self.summary = summary
        self.images = ClientImages(dataset, summary.partition.clients)
        self.sampler = PlacesSampler(range(len(self.images)))
        loader = runner.test_dataloader
        self.loader = DataLoader(self.images, loader.batch_size or 1, sampler=self.sampler,
                                 num_workers=loader.num_workers, persistent_workers=loader.num_workers > 0,
                                 collate_fn=pseudo_collate)
        self.metric = ConfusionMatrix()
        self.evaluator = Evaluator([self.metric])
        self.evaluator.dataset_meta = dict(classes=summary.class_names)

    def run(self, on_test: np.ndarray | None, own_weights: Iterator[tuple[int, dict]]) -> list[ClientFigures]:
        """Evaluate all clients.

        Args:
            on_test (np.ndarray, optional): Confusion matrix of the global
                model on the test images; None to count it where a client
                needs it.
            own_weights (Iterator[tuple[int, dict]]): Clients that keep
                weights, in ascending order, with these.
        """
        clients = self.summary.partition.clients
        figures = [ClientFigures(shard.name or str(client), len(shard.indices),
                                 [self.summary.class_names[cls] for cls in shard.classes], False)
                   for client, shard in enumerate(clients)]
        model, logger = self.runner.model, self.runner.logger
        model = getattr(model, 'module', model)
        received = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        for client, weights in own_weights:
            load_weights(model, {**received, **weights})
            figures[client].own_model = True
            start, end = self.images.starts[client:client + 2]
            own = self._count(self.loader, range(start, end))
            self._note(figures[client], own.get(client), self._count(self.runner.test_dataloader).get(0))
            logger.info(f'Client {figures[client].client} ({client + 1} of {len(clients)}): '
                        f'{_say(figures[client].own_images)} on its own images, '
                        f'{_say(figures[client].test_images)} on the test images')
        load_weights(model, received)
        others = [client for client in range(len(clients)) if not figures[client].own_model]
        if others:
            places = [place for client in others for place in range(*self.images.starts[client:client + 2])]
            logger.info(f'The global model is evaluated on the {len(places)} images of {len(others)} clients.')
            found = self._count(self.loader, places)
            if on_test is None:
                on_test = self._count(self.runner.test_dataloader).get(0)
            for client in others:
                self._note(figures[client], found.get(client), on_test)
        return figures

    def _note(self, figures: ClientFigures, own: np.ndarray | None, test: np.ndarray | None) -> None:
        index = {name: cls for cls, name in enumerate(self.summary.class_names)}
        annotated = [index[name] for name in figures.annotated]
        others = sorted(set(index.values()) - set(annotated))
        for found, matrix in ((figures.own_images, own), (figures.test_images, test)):
            if matrix is not None:
                found.update(mIoU=mean_iou(matrix), mIoU_annotated=mean_iou(matrix, annotated),
                             mIoU_never_annotated=mean_iou(matrix, others), aAcc=pixel_accuracy(matrix))

    @torch.no_grad()
    def _count(self, loader: DataLoader, places: Sequence[int] | None = None) -> dict[int, np.ndarray]:
        """Client -> confusion matrix of the model as it is; all of the test images is 0's."""
        number = len(loader.dataset)  # type: ignore[arg-type]
        if places is not None:
            self.sampler.places, number = places, len(places)
            if not number:
                return {}
        self.runner.model.eval()
        for batch in loader:
            with autocast(enabled=self.runner.test_loop.fp16):
                samples = self.runner.model.test_step(batch)
            self.evaluator.process(data_samples=samples, data_batch=batch)
        self.evaluator.evaluate(number)
        return self.metric.matrices


def _say(figures: dict[str, float | None]) -> str:
    return f'mIoU {shown_percent(figures.get("mIoU"))}'


def own_weights(checkpoint: Path, state: dict, device: torch.device) -> Iterator[tuple[int, dict]]:
    """What each client of a checkpoint keeps of the model, client after client.

    Args:
        checkpoint (Path): The checkpoint file, beside which the clients'
            folder is.
        state (dict): Its ``federated``.
        device (torch.device): Where tensors are wanted.

    Raises:
        FedSegError: A client's file is not there, or cannot be read.
    """
    store = ClientStateStore(checkpoint.parent / clients_folder(state))
    for client, rounds in sorted(kept_rounds(state).items()):
        if not store.has(client, rounds):
            raise FedSegError(f'{store.folder} lacks the state of client {client} after round {rounds}, which belongs '
                              f'to {checkpoint}: evaluate the last checkpoint, with the folder of the '
                              'training beside it')
        weights = store.load(client, device, rounds).get('weights', {})
        if weights:
            yield client, weights


def spread(figures: Sequence[ClientFigures]) -> dict[str, dict[str, dict[str, float | str]]]:
    """Mean, standard deviation (population), worst and best client of every figure, by kind of images."""
    found: dict[str, dict[str, dict[str, float | str]]] = {}
    for kind in ('own_images', 'test_images'):
        found[kind] = {}
        for name in COLUMNS:
            values = [(value, one.client) for one in figures if (value := getattr(one, kind).get(name)) is not None]
            if values:
                numbers = np.array([value for value, _ in values])
                worst, best = (values[place] for place in (int(numbers.argmin()), int(numbers.argmax())))
                found[kind][name] = dict(mean=float(numbers.mean()), std=float(numbers.std()), min=worst[0],
                                         worst=worst[1], max=best[0], best=best[1])
    return found


def client_table(figures: Sequence[ClientFigures]) -> str:
    """A line per client: own images to the left, test images to the right."""
    words = list(COLUMNS.values())
    table = PrettyTable(['client', 'images', 'annotated classes', *(f'own: {word}' for word in words),
                         *(f'test: {word}' for word in words)])
    table.align = 'r'
    table.align['client'] = table.align['annotated classes'] = 'l'
    for one in figures[:MOST_LINES]:
        classes = ', '.join(one.annotated[:4]) + (', …' if len(one.annotated) > 4 else '')
        table.add_row([one.client + (' *' if one.own_model else ''), one.images, classes,
                       *(shown_percent(one.own_images.get(name)) for name in COLUMNS),
                       *(shown_percent(one.test_images.get(name)) for name in COLUMNS)])
    lines = [table.get_string()]
    if len(figures) > MOST_LINES:
        lines.append(f'The first {MOST_LINES} of {len(figures)} clients are shown; all are in the file.')
    if any(one.own_model for one in figures):
        lines.append('* evaluated with its own weights; the others with the global model')
    for kind, words_of_kind in (('own_images', 'own images'), ('test_images', 'test images')):
        found = spread(figures)[kind].get('mIoU')
        # the global model has one figure on the test images
        if found and (kind == 'own_images' or found['max'] != found['min']):
            lines.append(f'mIoU on {words_of_kind}: mean {found["mean"]:.2f}, standard deviation {found["std"]:.2f}, '
                         f'worst {found["min"]:.2f} ({found["worst"]}), best {found["max"]:.2f} ({found["best"]})')
    return '\n'.join(lines)


def write_figures(figures: Sequence[ClientFigures], checkpoint: str, path: Path) -> None:
    """Write all figures as JSON."""
    write_json(path, dict(checkpoint=checkpoint, clients=[asdict(one) for one in figures], spread=spread(figures)))
