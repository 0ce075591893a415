from .accountant import PrivacyAccountant, Sampling
from .secure_noise import secure_normal

__all__ = ['PrivacyAccountant', 'Sampling', 'secure_normal']
