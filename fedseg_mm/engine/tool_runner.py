"""The Runner of this package's tools: the console says what people read, the log file has all."""
import logging
import warnings

from mmengine.logging import MMLogger
from mmengine.runner import Runner

#: How messages of OpenMMLab's begin that go to the log file alone.
FOR_THE_FILE = (
    '\n-----', 'Config:\n', 'Hooks will be executed', 'paramwise_options', 'The prefix is not set in metric class',
    '"FileClient" will be deprecated', '"HardDiskBackend" is the alias', 'Exp name:', 'Checkpoints will be saved to',
    'Saving checkpoint at', 'Loads checkpoint by', 'Distributed training is not used')
#: Warnings of MMSegmentation's on its own code.
OF_NO_USE = ('``build_loss`` would be deprecated', 'The draw is False, it means that the hook')


class ConsoleFilter(logging.Filter):
    """Keeps from the console what only the log file needs.

    Args:
        quiet (bool): Whether warnings and the end of the run are all that is
            shown.
    """

    def __init__(self, quiet: bool) -> None:
        super().__init__()
        self.quiet = quiet

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a message is shown."""
        if str(record.msg).startswith(FOR_THE_FILE):
            return False
        return not self.quiet or record.levelno >= logging.WARNING or getattr(record, 'of_the_end', False)


class ToolRunner(Runner):
    """MMEngine's Runner, with a :class:`ConsoleFilter`."""

    #: Set before the runner is made.
    quiet = False

    def build_logger(self, log_level: int | str = 'INFO', log_file: str | None = None, **kwargs) -> MMLogger:
        """MMEngine's logger, whose console shows less than its file."""
        for words in OF_NO_USE:
            warnings.filterwarnings('ignore', message=words, category=UserWarning)
        logger = super().build_logger(log_level, log_file, **kwargs)
        for handler in logger.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.addFilter(ConsoleFilter(self.quiet))
        return logger
