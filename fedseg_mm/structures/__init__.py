from .messages import Broadcast, ClientUpdate

__all__ = ['Broadcast', 'ClientUpdate']
