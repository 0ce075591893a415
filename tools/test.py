"""Command line of fedseg_mm.cli.test; see `python tools/test.py --help`."""
import sys

try:
    from fedseg_mm.cli.commands import run_command
except ImportError as error:
    sys.exit(f'test: {error}; see README.md, or: pip install -e ".[lite]" -c requirements/tested.txt')

if __name__ == '__main__':
    run_command('test')
