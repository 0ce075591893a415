"""The tools' command lines, in the words by which the user calls them."""
import argparse

from fedseg_mm.console import as_called, called


class AsCalledParser(argparse.ArgumentParser):
    """A parser whose help names tools and configs as the user has them."""

    def format_help(self) -> str:
        return as_called(super().format_help())


class ToolParser(AsCalledParser):
    """A tool's parser, whose help keeps the line breaks of its examples.

    Args:
        prog (str): The tool's name.
        description (str): What it is for, in a sentence.
        epilog (str): Examples, and what else is good to know.
    """

    def __init__(self, prog: str, description: str, epilog: str) -> None:
        super().__init__(prog=called(prog), description=description, epilog=epilog,
                         formatter_class=argparse.RawDescriptionHelpFormatter)
