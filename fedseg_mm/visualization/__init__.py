from .comparison import draw_comparison
from .partition_map import draw_partition

__all__ = ['draw_comparison', 'draw_partition']
