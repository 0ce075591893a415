"""The paper's table, reproduced; see `python tools/reproduce.py --help`."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the folder `reproduction` is beside this one

try:
    from reproduction.cli import main
except ImportError as error:
    sys.exit(f'reproduce: {error}; see README.md, or: pip install -e ".[lite]" -c requirements/tested.txt')

if __name__ == '__main__':
    main()
