from .amp_optim_wrapper import Float32ResizeAmpOptimWrapper
from .backends import Backend, LocalBackend, NVFlareBackend, SitesPartitioner
from .client_parallel import ClientParallel
from .client_state_store import ClientStateStore
from .clients_val_loop import ClientsValLoop
from .federated_loop import FederatedTrainLoop
from .hooks import (
    ChannelsLastHook,
    FederatedHook,
    MeanEvaluationHook,
    RoundLoggerHook,
    RoundProgressHook,
    WholeCheckpointHook,
)
from .local_trainer import LocalTrainer
from .optim_wrapper_constructor import FlatNoDecayConstructor
from .round_log_processor import RoundLogProcessor
from .silos_val_loop import SilosValLoop
from .stop_signals import Stopped

__all__ = [
    'Backend', 'ChannelsLastHook', 'ClientParallel', 'ClientStateStore', 'ClientsValLoop', 'FederatedHook',
    'FederatedTrainLoop', 'FlatNoDecayConstructor', 'Float32ResizeAmpOptimWrapper', 'LocalBackend',
    'LocalTrainer', 'MeanEvaluationHook', 'NVFlareBackend', 'RoundLogProcessor', 'RoundLoggerHook', 'RoundProgressHook',
    'SilosValLoop', 'SitesPartitioner', 'Stopped', 'WholeCheckpointHook'
]
