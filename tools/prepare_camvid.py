"""Command line of fedseg_mm.cli.prepare_camvid; see `python tools/prepare_camvid.py --help`."""
import sys

try:
    from fedseg_mm.cli.commands import run_command
except ImportError as error:
    sys.exit(f'prepare_camvid: {error}; see README.md, or: pip install -e ".[lite]" -c requirements/tested.txt')

if __name__ == '__main__':
    run_command('prepare_camvid')
