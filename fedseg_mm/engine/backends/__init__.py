from .backend import Backend
from .hostile_backend import HostileBackend
from .local_backend import LocalBackend

__all__ = ['Backend', 'HostileBackend', 'LocalBackend']
