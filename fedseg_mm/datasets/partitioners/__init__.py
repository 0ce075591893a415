from .class_partitioner import ClassPartitioner
from .dirichlet_partitioner import DirichletPartitioner
from .group_partitioner import GroupPartitioner
from .iid_partitioner import IIDPartitioner
from .manifest_partitioner import ManifestPartitioner
from .partitioner import Partitioner

__all__ = [
    'ClassPartitioner', 'DirichletPartitioner', 'GroupPartitioner', 'IIDPartitioner', 'ManifestPartitioner',
    'Partitioner'
]
