"""`python -m scorefield`, also for launchers: `torchrun --nproc_per_node=4 -m scorefield train ...`."""

import sys

from scorefield.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
