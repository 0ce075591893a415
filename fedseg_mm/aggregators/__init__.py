from .aggregator import Aggregator
from .weighted_mean import WeightedMean

__all__ = ['Aggregator', 'WeightedMean']
