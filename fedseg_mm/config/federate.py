"""Puts a config's ``federated`` section to work."""
from mmengine.config import Config

from fedseg_mm.console import as_called
from fedseg_mm.engine import FederatedTrainLoop
from fedseg_mm.errors import FedSegError
from fedseg_mm.federation import Federation
from fedseg_mm.registry import ALGORITHMS, build, check_arguments
from fedseg_mm.validation import check_positive


def federated_section(cfg: Config) -> dict:
    """The config's ``federated``, or the FederatedHook that it lists instead.

    Raises:
        FedSegError: There is none, or it holds an unknown key.
    """
    federated = cfg.get('federated')
    listed = [hook for hook in cfg.get('custom_hooks') or [] if hook.get('type') == 'FederatedHook']
    if federated is None and listed:
        federated = {key: value for key, value in listed[0].items() if key != 'type'}
    if federated is None:
        raise FedSegError(f'{cfg.filename} has no `federated = dict(...)`: inherit one from '
                          f'{as_called("configs/_base_/federated/")}, or write your own')
    if not isinstance(federated, dict):
        raise FedSegError(f'federated must be a dict, but is {federated!r}')
    check_arguments(Federation, federated, 'federated')
    return federated


def federate(cfg: Config) -> None:
    """Put the config's ``federated`` section to work, in place.

    Raises:
        FedSegError: The section is missing or holds an unknown key.
    """
    federated = federated_section(cfg)
    if not isinstance(cfg.get('train_cfg'), dict):
        raise FedSegError(f'train_cfg must be a dict, but is {cfg.get("train_cfg")!r}')
    train_cfg = dict(cfg.train_cfg)
    if train_cfg.pop('type', None) != 'FederatedTrainLoop':
        raise FedSegError("a federated config trains in rounds: set train_cfg = dict(type='FederatedTrainLoop', "
                          'max_rounds=..., val_interval=...)')
    train_cfg.pop('federated', None)
    check_arguments(FederatedTrainLoop, dict(runner=None, dataloader=None, **train_cfg), 'train_cfg')
    check_positive('train_cfg.max_rounds', train_cfg['max_rounds'])
    algorithm = build(ALGORITHMS, federated.get('algorithm') or dict(type='FedAvg'), 'federated.algorithm')
    if cfg.get('val_cfg') and algorithm.val_loop:
        cfg.val_cfg = dict(type=algorithm.val_loop)
    cfg.train_cfg.federated = federated
    own = ('FederatedHook', 'RoundProgressHook')
    others = [hook for hook in cfg.get('custom_hooks') or [] if hook.get('type') not in own]
    cfg.custom_hooks = [dict(type='RoundProgressHook'), *others]
