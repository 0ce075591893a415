"""Puts a config's ``federated`` section to work."""
from mmengine.config import Config
from mmengine.registry import LOOPS

from fedseg_mm.algorithms import FedAvg
from fedseg_mm.console import as_called
from fedseg_mm.engine import FederatedTrainLoop
from fedseg_mm.errors import Faults, FedSegError
from fedseg_mm.federation import Federation
from fedseg_mm.registry import ALGORITHMS, BACKENDS, build, check_arguments, registered, type_name
from fedseg_mm.validation import check_positive


def federated_section(cfg: Config) -> dict:
    """The config's ``federated``, or the FederatedHook that it lists instead.

    Raises:
        FedSegError: There is none, or it holds an unknown key.
    """
    federated = cfg.get('federated')
    listed = [hook for hook in cfg.get('custom_hooks') or [] if type_name(hook.get('type')) == 'FederatedHook']
    if federated is None and listed:
        federated = {key: value for key, value in listed[0].items() if key != 'type'}
    if federated is None:
        raise FedSegError(f'{cfg.filename} has no `federated = dict(...)`: inherit one from '
                          f'{as_called("configs/_base_/federated/")}, or write your own')
    if not isinstance(federated, dict):
        raise FedSegError(f'federated must be a dict, but is {federated!r}')
    check_arguments(Federation, federated, 'federated')
    return federated


def _check_train_cfg(cfg: Config) -> None:
    if not isinstance(cfg.get('train_cfg'), dict):
        raise FedSegError(f'train_cfg must be a dict, but is {cfg.get("train_cfg")!r}')
    train_cfg = dict(cfg.train_cfg)
    loop = registered(LOOPS, train_cfg.pop('type', None))
    if not isinstance(loop, type) or not issubclass(loop, FederatedTrainLoop):
        raise FedSegError("a federated config trains in rounds: set train_cfg = dict(type='FederatedTrainLoop', "
                          'max_rounds=..., val_interval=...)')
    train_cfg.pop('federated', None)
    faults = Faults()
    with faults:
        check_arguments(loop, dict(runner=None, dataloader=None, **train_cfg), 'train_cfg')
    if 'max_rounds' in train_cfg:
        with faults:
            check_positive('train_cfg.max_rounds', train_cfg['max_rounds'])
    faults.report()


def _algorithm(federated: dict) -> FedAvg:
    """The method; builds all parts, so that all that is wrong with them is reported."""
    partitioner = federated['partitioner']
    if isinstance(partitioner, dict) and type_name(partitioner.get('type')) != 'ManifestPartitioner':
        return Federation(**federated).algorithm
    return build(ALGORITHMS, federated.get('algorithm') or dict(type='FedAvg'), 'federated.algorithm')


def federate(cfg: Config) -> None:
    """Put the config's ``federated`` section to work, in place.

    Raises:
        FedSegError: The section is missing or holds an unknown key.
    """
    faults = Faults()
    with faults:
        _check_train_cfg(cfg)
    with faults:
        federated = federated_section(cfg)
        algorithm = _algorithm(federated)
    faults.report()
    backend = registered(BACKENDS, (federated.get('backend') or {}).get('type'))
    if cfg.get('val_cfg') and (loop := algorithm.val_loop or getattr(backend, 'val_loop', None)):
        cfg.val_cfg = dict(type=loop)
    cfg.train_cfg.federated = federated
    own = ('FederatedHook', 'RoundProgressHook')
    others = [hook for hook in cfg.get('custom_hooks') or [] if type_name(hook.get('type')) not in own]
    cfg.custom_hooks = [dict(type='RoundProgressHook'), *others]
