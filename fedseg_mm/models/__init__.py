from .accuracy import accuracy_without_waiting
from .backbones import EfficientNetLite
from .channel_flip import flip_without_waiting
from .feature_check import check_features, check_features_once
from .frozen_model import FrozenModel
from .hide_unannotated_pixels import hide_unannotated_pixels
from .losses import BackCELoss, PixelContrastLoss
from .partly_annotated import check_losses, head_losses
from .pixel_features import MissingMaps, PixelFeatures, PixelMaps
from .projection_head import ProjectionHead

__all__ = [
    'BackCELoss', 'EfficientNetLite', 'FrozenModel', 'MissingMaps', 'PixelContrastLoss', 'PixelFeatures', 'PixelMaps',
    'ProjectionHead', 'accuracy_without_waiting', 'check_features', 'check_features_once', 'check_losses',
    'flip_without_waiting', 'head_losses', 'hide_unannotated_pixels'
]
