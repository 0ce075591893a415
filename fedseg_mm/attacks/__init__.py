from .alie import ALIE
from .attack import Attack, HonestUpdates
from .gaussian_noise import GaussianNoise
from .hostile_clients import HostileClients
from .inner_product_manipulation import InnerProductManipulation
from .label_flip import LabelFlip
from .scaling import Scaling
from .sign_flip import SignFlip

__all__ = [
    'ALIE', 'Attack', 'GaussianNoise', 'HonestUpdates', 'HostileClients', 'InnerProductManipulation', 'LabelFlip',
    'Scaling', 'SignFlip'
]
