"""`python -m fastprovd`."""

import sys

from fastprovd.cli import main

if __name__ == "__main__":
    sys.exit(main())
