"""`python -m scorefield.cli`, for launchers such as torchrun."""

import sys

from scorefield.cli.main import main

sys.exit(main())
