from .client_context import ClientContext, Federation
from .messages import Broadcast, ClientUpdate

__all__ = ['Broadcast', 'ClientContext', 'ClientUpdate', 'Federation']
