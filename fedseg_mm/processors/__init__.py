from .bfloat16_compression import BFloat16Compression
from .compression import Compression
from .differential_privacy import DifferentialPrivacy, PrivacySpent
from .gaussian_mechanism import GaussianMechanism
from .int8_compression import Int8Compression
from .norm_clipping import NormClipping
from .pipeline import ProcessorPipeline
from .top_k_compression import TopKCompression
from .update_processor import ProcessorContext, UpdateProcessor

__all__ = [
    'BFloat16Compression', 'Compression', 'DifferentialPrivacy', 'GaussianMechanism', 'Int8Compression',
    'NormClipping', 'PrivacySpent', 'ProcessorContext', 'ProcessorPipeline', 'TopKCompression', 'UpdateProcessor'
]
