"""What sites send, looked at before anybody uses it: a site may be broken, or hostile."""
import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from fedseg_mm.errors import FedSegError, reason, shown
from fedseg_mm.silos.site_link import MOST_WORDS
from fedseg_mm.structures import Broadcast, ClientUpdate
from fedseg_mm.structures.messages import check_fits

if TYPE_CHECKING:
    from fedseg_mm.algorithms import FedAvg

#: What a client reports of its batches: names of losses and the like, and not those of a round's own figures.
_METRIC = re.compile(r'[A-Za-z_][A-Za-z0-9_.]{0,79}')
_NO_METRICS = ('client', 'name', 'images', 'steps', 'time', 'used', 'reason')
_MOST_METRICS = 100
#: Images that a site may say it has, of which each has a name here.
_MOST_IMAGES = 1 << 22
#: Pixels in the confusion matrix of a site, of which the sums of all sites are exact.
_MOST_PIXELS = 1 << 48


def said(error: Exception) -> str:
    """What is wrong with what a site has sent, which may hold any text of its own."""
    return shown(str(error) if isinstance(error, FedSegError) else reason(error, typed=True), MOST_WORDS)


def description(name: str, told: dict, classes: Sequence[str]) -> dict:
    """What a site tells of itself, if it makes sense.

    Args:
        name (str): The site's name.
        told (dict): What it has sent.
        classes (Sequence[str]): All classes of the federation.

    Raises:
        FedSegError: It does not; says what.
    """
    try:
        numbers = [told['images'], told['val_images'], *told.get('pixels', []), told.get('void', 0),
                   told.get('unannotated_pixels', 0)]
        fits = (all(isinstance(number, int) and 0 <= number < 1 << 53 for number in numbers)
                and len(set(told['annotates'])) == len(told['annotates'])
                and told['images'] <= _MOST_IMAGES and len(told.get('pixels', classes)) == len(classes)
                and isinstance(told['parameters'], str) and set(told['annotates']) <= set(classes)
                and (told['unannotated'] is None or isinstance(told['unannotated'], int)))
    except (KeyError, TypeError) as error:
        raise FedSegError(f'{name} does not say what it holds: {error}') from error
    if not fits:
        raise FedSegError(f'{name} says of itself what cannot be')
    return told


def confusion_matrix(name: str, told: dict, num_classes: int) -> np.ndarray:
    """A site's confusion matrix, int64 (C, C).

    Raises:
        FedSegError: It is none.
    """
    matrix = np.array(told['matrix'])
    if matrix.shape != (num_classes, num_classes) or not np.issubdtype(matrix.dtype, np.integer) \
            or (matrix < 0).any() or matrix.sum(dtype=np.float64) >= _MOST_PIXELS:
        raise FedSegError(f'{name} sends no confusion matrix of {num_classes} classes')
    return matrix.astype(np.int64)


def usable_update(content: bytes, name: str, client: int, images: int, broadcast: Broadcast, algorithm: 'FedAvg'
                  ) -> ClientUpdate:
    """An update as a client in the server's process would give it.

    Args:
        content (bytes): The message.
        name (str): The site's name.
        client (int): Its id.
        images (int): Images that it has.
        broadcast (Broadcast): What it was sent.
        algorithm (FedAvg): The method.

    Raises:
        Exception: It cannot be used; of many kinds.
    """
    what, shared = f'the update of {name}', broadcast.weights
    update = ClientUpdate.from_bytes(content, shared)
    _check_fields(update, name, client, images, bool(algorithm.processors.processors))
    check_fits(update.weights, {key: tensor for key, tensor in shared.items() if (
        update.payload is None or not tensor.is_floating_point())}, what)
    like = algorithm.extras_like(broadcast)
    extras = update.extras if like is None or like else {}
    if like:
        check_fits(extras, like, what)
    device = next(iter(shared.values())).device
    metrics = {key: value for key, value in update.metrics.items()
               if _METRIC.fullmatch(key) and key not in _NO_METRICS}
    return replace(
        update, client=client, num_images=images, extras=_moved(extras, device), unshared={},
        metrics=dict(list(metrics.items())[:_MOST_METRICS]),
        # in the model's own order and layout in memory
        weights={key: torch.empty_like(tensor).copy_(update.weights[key])
                 for key, tensor in shared.items() if key in update.weights},
        payload=None if update.payload is None else _moved(update.payload, device),
        is_finite=bool(update.is_finite) and (
            update.payload is None or _can_be_decoded(update.payload, algorithm, what)))


def _check_fields(update: ClientUpdate, name: str, client: int, images: int, processed: bool) -> None:
    """Refuse what is another client's, weighs more than it may, or was not processed as all are.

    Raises:
        FedSegError: Says what.
    """
    if update.client != client or update.num_images != images:
        raise FedSegError(f'{name} sends the update of client {update.client} with {update.num_images} images, but '
                          f'is client {client} with {images}')
    if update.is_finite and processed and update.payload is None:
        raise FedSegError(f'{name} sends an update that has not been through federated.processors')
    if update.payload is not None and not processed:
        raise FedSegError(f'{name} sends an update that has been through processors, but federated.processors '
                          'names none')


def _can_be_decoded(payload: Mapping[str, Tensor], algorithm: 'FedAvg', what: str) -> bool:
    """Whether all that update processors will make of a payload is finite.

    Raises:
        Exception: They can make nothing of it; of many kinds.
    """
    like = {name: algorithm.weights[name] for name in algorithm.processed}
    last = copy.copy(algorithm.processors.processors[-1])  # which may count what it receives, or change it
    device = next(iter(algorithm.weights.values())).device
    change = last.at_receipt({name: tensor.to(device, copy=True) for name, tensor in payload.items()}, like)
    check_fits(change, like, what)
    return all(bool(tensor.isfinite().all()) for tensor in change.values())


def _moved(tensors: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: tensor.to(device) for name, tensor in tensors.items()}
