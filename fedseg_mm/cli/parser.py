"""The tools' command lines, in the words by which the user calls them."""
import argparse
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


class ToolParser(argparse.ArgumentParser):
    """A tool's parser, whose help keeps the line breaks of its examples.

    Args:
        prog (str): The tool's name.
        description (str): What it is for, in a sentence.
        epilog (str): Examples, and what else is good to know.
    """

    def __init__(self, prog: str, description: str, epilog: str) -> None:
        if is_module_call():
            prog = f'python -m fedseg_mm {prog.removeprefix("fed_")}'
        super().__init__(prog=prog, description=description, epilog=epilog,
                         formatter_class=argparse.RawDescriptionHelpFormatter)

    def format_help(self) -> str:
        return as_called(super().format_help())
