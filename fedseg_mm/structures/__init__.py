from .client_context import ClientContext, FederationInfo
from .messages import Broadcast, ClientUpdate

__all__ = ['Broadcast', 'ClientContext', 'ClientUpdate', 'FederationInfo']
