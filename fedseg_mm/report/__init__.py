from .page import write_report
from .published import published
from .run_record import RunRecord

__all__ = ['RunRecord', 'published', 'write_report']
