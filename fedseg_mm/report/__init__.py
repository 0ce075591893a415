from .page import write_report
from .run_record import RunRecord

__all__ = ['RunRecord', 'write_report']
