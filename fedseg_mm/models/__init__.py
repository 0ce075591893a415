from .backbones import EfficientNetLite
from .frozen_model import FrozenModel
from .hide_unannotated_pixels import hide_unannotated_pixels
from .losses import BackCELoss, PixelContrastLoss
from .pixel_features import PixelFeatures, PixelMaps
from .projection_head import ProjectionHead

__all__ = ['BackCELoss', 'EfficientNetLite', 'FrozenModel', 'PixelContrastLoss', 'PixelFeatures', 'PixelMaps',
           'ProjectionHead',
           'hide_unannotated_pixels']
