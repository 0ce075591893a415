from .all_clients_sampler import AllClientsSampler
from .class_balanced_sampler import ClassBalancedSampler
from .client_sampler import ClientSampler
from .poisson_sampler import PoissonSampler
from .uniform_sampler import UniformSampler
from .weighted_sampler import WeightedSampler

__all__ = ['AllClientsSampler', 'ClassBalancedSampler', 'ClientSampler', 'PoissonSampler', 'UniformSampler',
           'WeightedSampler']
