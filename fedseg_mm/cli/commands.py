"""From a command's name to what runs it."""
import importlib
import sys
from pathlib import Path

from fedseg_mm.cli import arguments
from fedseg_mm.console import COMMANDS, asks_for_help, called, command
from fedseg_mm.version import __version__

USAGE = """\
usage: {own} COMMAND ARGUMENTS...

{commands}

{own} COMMAND --help says more. Configs that the package ships are named like
fedseg_mm::fedavg/upernet_streetscenes_noniid1_backce.py, those of MMSegmentation like
mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py."""


def run_command(name: str, argv: list[str] | None = None) -> None:
    """Run a command of ``COMMANDS``.

    Args:
        name (str): The command.
        argv (list[str], optional): Its arguments. None: those of the process.
    """
    if asks_for_help():
        getattr(arguments, name)(argv)  # ends here: the rest of the package was not imported
    try:
        module = importlib.import_module(f'fedseg_mm.cli.{name}')
    except ImportError as error:
        tool = Path(COMMANDS[name][0]).stem
        sys.exit(f'{called(tool)}: {error}; see README.md, or: pip install -e ".[lite]" -c requirements/tested.txt')
    module.main(argv)


def main() -> None:
    """`fedseg_mm COMMAND`, also as `python -m fedseg_mm COMMAND`: the tools, where there may be no checkout."""
    checkout = Path(__file__).parents[2]
    usage = USAGE.format(own=command() or 'fedseg_mm', commands='\n'.join(
        f'  {name:16s}{what}{f" ({tool})" if (checkout / tool).is_file() else ""}'
        for name, (tool, what) in COMMANDS.items()))
    name = sys.argv[1] if len(sys.argv) > 1 else '--help'
    if name in ('-h', '--help'):
        print(usage)
    elif name == '--version':
        print(__version__)
    elif name in COMMANDS:
        run_command(name, sys.argv[2:])
    else:
        sys.exit(f'fedseg_mm: there is no command {name}\n{usage}')
