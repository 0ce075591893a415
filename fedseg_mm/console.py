"""The names of commands and configs, as the user has them."""
import re
import sys
from pathlib import Path

#: A tool's path in a text, unless it is MMSegmentation's own.
_TOOL = r'(?<!own )tools/(?:fed_)?(\w+)\.py'


def command() -> str | None:
    """How the user called the package: by its command, as a module, or (None) by a tool of a checkout."""
    called = Path(sys.argv[0])
    if called.name == 'fedseg_mm':
        return 'fedseg_mm'
    if called.parts[-2:] == ('fedseg_mm', '__main__.py'):
        return 'python -m fedseg_mm'
    return None


def as_called(text: str) -> str:
    """A text in which tools and configs are named as the user has them.

    Args:
        text (str): It names tools and configs as in a checkout, such as
            ``python tools/fed_train.py configs/fedseg/…``.

    Returns:
        str: The same; or, where there may be no checkout,
        ``fedseg_mm train fedseg_mm::fedseg/…`` or, under ``python -m
        fedseg_mm``, the same as a module.
    """
    own = command()
    if own is None:
        return text
    # torchrun starts modules, and no commands
    text = re.sub(rf'(--nproc_per_node=\d+) {_TOOL}', r'\1 -m fedseg_mm \2', text)
    text = re.sub(rf'(?:python )?{_TOOL}', rf'{own} \1', text)
    return re.sub(r'(?<![\w/.])configs/(?=\w)', 'fedseg_mm::', text)
