from .hide_unannotated_pixels import hide_unannotated_pixels
from .losses import BackCELoss

__all__ = ['BackCELoss', 'hide_unannotated_pixels']
