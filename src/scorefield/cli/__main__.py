"""`python -m scorefield.app`, for launchers such as torchrun."""

import sys

from scorefield.app.run import main

sys.exit(main())
