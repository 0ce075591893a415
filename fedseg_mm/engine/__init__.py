from .channels_last_hook import ChannelsLastHook
from .client_parallel import ClientParallel
from .client_sampler import ClientSampler
from .client_state_store import ClientStateStore
from .clients_val_loop import ClientsValLoop
from .federated_hook import FederatedHook
from .federated_loop import FederatedTrainLoop
from .local_trainer import LocalTrainer
from .mean_evaluation_hook import MeanEvaluationHook
from .optim_wrapper_constructor import FlatNoDecayConstructor
from .round_log_processor import RoundLogProcessor
from .round_logger_hook import RoundLoggerHook
from .round_progress_hook import RoundProgressHook

__all__ = [
    'ChannelsLastHook', 'ClientParallel', 'ClientSampler', 'ClientStateStore', 'ClientsValLoop', 'FederatedHook',
    'FederatedTrainLoop', 'FlatNoDecayConstructor', 'LocalTrainer', 'MeanEvaluationHook', 'RoundLogProcessor',
    'RoundLoggerHook', 'RoundProgressHook'
]
