from .client_views import draw_client_views
from .comparison import draw_comparison
from .confusion_map import draw_confusion
from .convergence import draw_convergence
from .local_epochs import draw_local_epochs
from .panels import draw_panels
from .partition_map import draw_partition

__all__ = ['draw_client_views', 'draw_comparison', 'draw_confusion', 'draw_convergence',
           'draw_local_epochs', 'draw_panels', 'draw_partition']
