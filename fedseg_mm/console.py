"""The names of commands and configs, as the user has them."""
import re
import sys
from pathlib import Path

#: A tool's path in a text, unless it is MMSegmentation's own.
_TOOL = r'(?<!own )tools/(?:fed_)?(\w+)\.py'


def is_module_call() -> bool:
    """Whether the user called ``python -m fedseg_mm``, where there may be no checkout."""
    return Path(sys.argv[0]).parts[-2:] == ('fedseg_mm', '__main__.py')


def as_called(text: str) -> str:
    """A text in which tools and configs are named as the user has them.

    Args:
        text (str): It names tools and configs as in a checkout, such as
            ``python tools/fed_train.py configs/fedseg/…``.

    Returns:
        str: The same; or, under ``python -m fedseg_mm``, with
        ``python -m fedseg_mm train fedseg_mm::fedseg/…`` instead.
    """
    if not is_module_call():
        return text
    text = re.sub(r'(python|--nproc_per_node=\d+) tools/', r'\1 -m tools/', text)
    text = re.sub(rf'(-m )?{_TOOL}', lambda found: f'{found[1] or "python -m "}fedseg_mm {found[2]}', text)
    return re.sub(r'(?<![\w/.])configs/(?=\w)', 'fedseg_mm::', text)
