"""`python -m scorefield.cli`, the same as `python -m scorefield`."""

import sys

from scorefield.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
