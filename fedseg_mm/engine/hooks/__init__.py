from .channels_last_hook import ChannelsLastHook
from .federated_checkpoint_hook import FederatedCheckpointHook
from .federated_hook import FederatedHook
from .mean_evaluation_hook import MeanEvaluationHook
from .prediction_samples_hook import PredictionSamplesHook
from .round_log_hook import RoundLogHook
from .round_logger_hook import RoundLoggerHook
from .round_progress_hook import RoundProgressHook
from .run_summary_hook import RunSummaryHook
from .segmentor_weights_hook import SegmentorWeightsHook
from .stop_hook import StopHook
from .whole_checkpoint_hook import WholeCheckpointHook

__all__ = ['ChannelsLastHook', 'FederatedCheckpointHook', 'FederatedHook', 'MeanEvaluationHook',
           'PredictionSamplesHook', 'RoundLogHook', 'RoundLoggerHook', 'RoundProgressHook', 'RunSummaryHook',
           'SegmentorWeightsHook', 'StopHook', 'WholeCheckpointHook']
