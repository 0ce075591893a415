from .client_context import ClientContext, FederationInfo
from .messages import Broadcast, ClientFailure, ClientUpdate

__all__ = ['Broadcast', 'ClientContext', 'ClientFailure', 'ClientUpdate', 'FederationInfo']
