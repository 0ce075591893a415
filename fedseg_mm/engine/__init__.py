from .client_sampler import ClientSampler
from .federated_hook import FederatedHook
from .federated_loop import FederatedTrainLoop
from .local_trainer import LocalTrainer
from .round_log_processor import RoundLogProcessor
from .round_logger_hook import RoundLoggerHook
from .round_progress_hook import RoundProgressHook

__all__ = [
    'ClientSampler', 'FederatedHook', 'FederatedTrainLoop', 'LocalTrainer', 'RoundLogProcessor', 'RoundLoggerHook',
    'RoundProgressHook'
]
