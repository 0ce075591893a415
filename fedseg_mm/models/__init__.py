from . import accuracy, channel_flip  # noqa: F401  they take the place of what makes a GPU wait
from .backbones import EfficientNetLite
from .feature_check import check_features, check_features_once
from .frozen_model import FrozenModel
from .hide_unannotated_pixels import hide_unannotated_pixels
from .losses import BackCELoss, PixelContrastLoss
from .partly_annotated import check_losses, head_losses
from .pixel_features import MissingMaps, PixelFeatures, PixelMaps
from .projection_head import ProjectionHead

__all__ = [
    'BackCELoss', 'EfficientNetLite', 'FrozenModel', 'MissingMaps', 'PixelContrastLoss', 'PixelFeatures', 'PixelMaps',
    'ProjectionHead', 'check_features', 'check_features_once', 'check_losses', 'head_losses', 'hide_unannotated_pixels'
]
