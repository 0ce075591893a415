from .aggregator import Aggregator
from .cohort_aggregator import CohortAggregator
from .coordinate_median import CoordinateMedian
from .geometric_median import GeometricMedian
from .krum import Krum
from .multi_krum import MultiKrum
from .norm_clipped_mean import NormClippedMean
from .trimmed_mean import TrimmedMean
from .weighted_mean import WeightedMean

__all__ = [
    'Aggregator', 'CohortAggregator', 'CoordinateMedian', 'GeometricMedian', 'Krum', 'MultiKrum', 'NormClippedMean',
    'TrimmedMean', 'WeightedMean'
]
