"""Command line of fedseg_mm.cli.silo; see `python tools/fed_silo.py --help`."""
import sys

try:
    from fedseg_mm.cli.commands import run_command
except ImportError as error:
    sys.exit(f'fed_silo: {error}; see README.md, or: pip install -e ".[lite]" -c requirements/tested.txt')

if __name__ == '__main__':
    run_command('silo')
