from .bfloat16_compression import BFloat16Compression
from .compression import Compression
from .gaussian_mechanism import GaussianMechanism
from .int8_compression import Int8Compression
from .norm_clipping import NormClipping
from .pipeline import ProcessorPipeline
from .top_k_compression import TopKCompression
from .update_processor import ProcessorContext, UpdateProcessor

__all__ = [
    'BFloat16Compression', 'Compression', 'GaussianMechanism', 'Int8Compression', 'NormClipping', 'ProcessorContext',
    'ProcessorPipeline', 'TopKCompression', 'UpdateProcessor'
]
