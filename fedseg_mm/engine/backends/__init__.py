from .backend import Backend
from .local_backend import LocalBackend

__all__ = ['Backend', 'LocalBackend']
