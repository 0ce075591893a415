"""Checks that the heads of a model fit its backbone."""
import torch
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import nn

from fedseg_mm.errors import Faults


def check_features_once(model: nn.Module) -> None:
    """Compare every head with the first features that reach it, before it computes with them.

    The first batch is the place for it: what a backbone gives depends on code,
    and a trial would cost a step. Nothing stays on the model afterwards.

    Args:
        model (nn.Module): An MMSegmentation segmentor; others are left alone.
    """
    source = getattr(model, 'neck', None) or getattr(model, 'backbone', None)
    if not isinstance(source, nn.Module):
        return
    name = 'neck' if getattr(model, 'neck', None) is not None else 'backbone'

    def compare(module, _, features):
        handle.remove()
        check_features(model, features, f'model.{name} ({type(module).__name__})')

    handle = source.register_forward_hook(compare)


def check_features(model: nn.Module, features, source: str) -> None:
    """Refuse heads whose ``in_index`` or ``in_channels`` are not those of the features.

    Args:
        model (nn.Module): An MMSegmentation segmentor.
        features (Sequence[Tensor]): Feature maps of shape (N, C, H, W).
            Others, as tokens beside maps, are not looked at.
        source (str): Where they come from.

    Raises:
        FedSegError: Names the config's keys and the right numbers, a line for
            each head.
    """
    if not isinstance(features, (tuple, list)) or not all(
            isinstance(feature, torch.Tensor) and feature.ndim == 4 for feature in features):
        return
    given = [feature.shape[1] for feature in features]
    faults = Faults()
    for name, head in model.named_modules():
        if isinstance(head, BaseDecodeHead):
            _check_head(f'model.{name}', head, given, source, faults)
    faults.report()


def _check_head(key: str, head: BaseDecodeHead, given: list[int], source: str, faults: Faults) -> None:
    several = isinstance(head.in_index, (tuple, list))
    taken = list(head.in_index) if several else [head.in_index]
    if not all(isinstance(index, int) for index in taken):
        return
    listed = f'{source} gives {len(given)} feature map{"s" * (len(given) > 1)} with {_listed(given)} channels'
    if bad := [index for index in taken if not -len(given) <= index < len(given)]:
        faults.add(f'{key}.in_index takes map {bad[0]}, but {listed}: give in_index from 0 to {len(given) - 1}')
        return
    right = [given[index] for index in taken]
    wanted = list(head.in_channels) if isinstance(head.in_channels, (tuple, list)) else [head.in_channels]
    joined = several and head.input_transform == 'resize_concat'
    if wanted != ([sum(right)] if joined else right):
        has = f'{_listed(wanted)} in all' if joined else _listed(wanted)
        faults.add(f'{key}.in_channels is {has}, but {listed}, of which it takes {_listed(taken)}: set '
                   f'{key}.in_channels={right if several else right[0]}')


def _listed(numbers: list[int]) -> str:
    return ', '.join(map(str, numbers))
