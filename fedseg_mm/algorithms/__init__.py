from .fedavg import FedAvg
from .weighted_mean import WeightedMean

__all__ = ['FedAvg', 'WeightedMean']
