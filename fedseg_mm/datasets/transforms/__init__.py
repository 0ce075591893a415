from .load_cached_image import LoadCachedImage
from .load_street_scene import LoadStreetScene
from .mask_to_client import MaskToClient
from .remap_unannotated import RemapUnannotated

__all__ = ['LoadCachedImage', 'LoadStreetScene', 'MaskToClient', 'RemapUnannotated']
