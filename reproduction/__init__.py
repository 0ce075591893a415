from fedseg_mm.run_logs import checkpoint_round

from .kept_state import KeptState
from .pictures import paint_panels, plot
from .protocol import METHODS, PROTOCOLS, SPLITS, Protocol
from .result import save_result
from .row_results import RowResults
from .run import Run
from .side_by_side import SideBySide

__all__ = ['METHODS', 'PROTOCOLS', 'SPLITS', 'KeptState', 'Protocol', 'RowResults', 'Run', 'SideBySide',
           'checkpoint_round', 'paint_panels', 'plot', 'save_result']
