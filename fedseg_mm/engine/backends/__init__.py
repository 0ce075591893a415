from .backend import Backend
from .local_backend import LocalBackend
from .nvflare_backend import NVFlareBackend, SitesPartitioner

__all__ = ['Backend', 'LocalBackend', 'NVFlareBackend', 'SitesPartitioner']
