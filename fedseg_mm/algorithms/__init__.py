from .centralised import Centralised
from .fedadam import FedAdam
from .fedavg import FedAvg
from .fedavgm import FedAvgM
from .fedbn import FedBN
from .feddyn import FedDyn
from .fedopt import FedOpt
from .fedprox import FedProx
from .fedseg import FedSeg
from .fedyogi import FedYogi
from .local_only import LocalOnly
from .moon import MOON
from .scaffold import SCAFFOLD
from .silobn import SiloBN
from .weighted_mean import WeightedMean

__all__ = [
    'Centralised', 'FedAdam', 'FedAvg', 'FedAvgM', 'FedBN', 'FedDyn', 'FedOpt', 'FedProx', 'FedSeg', 'FedYogi',
    'LocalOnly', 'MOON', 'SCAFFOLD', 'SiloBN', 'WeightedMean'
]
