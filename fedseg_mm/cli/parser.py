"""The tools' command lines, in the words by which the user calls them."""
import argparse

from fedseg_mm.console import as_called, command


class ToolParser(argparse.ArgumentParser):
    """A tool's parser, whose help keeps the line breaks of its examples.

    Args:
        prog (str): The tool's name.
        description (str): What it is for, in a sentence.
        epilog (str): Examples, and what else is good to know.
    """

    def __init__(self, prog: str, description: str, epilog: str) -> None:
        if own := command():
            prog = f'{own} {prog.removeprefix("fed_")}'
        super().__init__(prog=prog, description=description, epilog=epilog,
                         formatter_class=argparse.RawDescriptionHelpFormatter)

    def format_help(self) -> str:
        return as_called(super().format_help())
