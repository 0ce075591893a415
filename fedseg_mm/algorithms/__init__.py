from .centralised import Centralised
from .fedavg import FedAvg
from .fedbn import FedBN, SiloBN
from .feddyn import FedDyn
from .fedopt import FedAdam, FedAvgM, FedOpt, FedYogi
from .fedprox import FedProx
from .fedseg import FedSeg
from .local_only import LocalOnly
from .moon import MOON
from .scaffold import SCAFFOLD
from .weighted_mean import WeightedMean

__all__ = [
    'Centralised', 'FedAdam', 'FedAvg', 'FedAvgM', 'FedBN', 'FedDyn', 'FedOpt', 'FedProx', 'FedSeg', 'FedYogi',
    'LocalOnly', 'MOON', 'SCAFFOLD', 'SiloBN', 'WeightedMean'
]
