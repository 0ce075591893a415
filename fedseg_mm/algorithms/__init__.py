from .centralised import Centralised
from .fedadam import FedAdam
from .fedavg import FedAvg
from .fedavgm import FedAvgM
from .fedbn import FedBN
from .feddyn import FedDyn
from .fedntd import FedNTD
from .fedopt import FedOpt
from .fedprox import FedProx
from .fedseg import FedSeg
from .fedyogi import FedYogi
from .local_only import LocalOnly
from .moon import MOON
from .pseudo_labels import PseudoLabels
from .scaffold import SCAFFOLD
from .silobn import SiloBN

__all__ = [
    'Centralised', 'FedAdam', 'FedAvg', 'FedAvgM', 'FedBN', 'FedDyn', 'FedNTD', 'FedOpt', 'FedProx', 'FedSeg',
    'FedYogi', 'LocalOnly', 'MOON', 'PseudoLabels', 'SCAFFOLD', 'SiloBN'
]
