"""Command line of fedseg_mm.cli.reproduce; see `python tools/reproduce.py --help`."""
import sys

try:
    from fedseg_mm.cli.reproduce import main
except ImportError as error:
    sys.exit(f'reproduce: {error}; see README.md, or: pip install -e ".[lite]" -c requirements/tested.txt')

if __name__ == '__main__':
    main()
