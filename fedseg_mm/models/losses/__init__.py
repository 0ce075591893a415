from .back_ce_loss import BackCELoss, back_ce
from .pixel_contrast_loss import PixelContrastLoss, pixel_contrast

__all__ = ['BackCELoss', 'PixelContrastLoss', 'back_ce', 'pixel_contrast']
