from .losses import BackCELoss
from .unannotated_pixels import hide_unannotated_pixels

__all__ = ['BackCELoss', 'hide_unannotated_pixels']
