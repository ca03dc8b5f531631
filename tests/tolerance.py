"""Every tolerance of the test suite, named, with the reason for its size: `from tolerance import FLOAT32`.

No test file holds a number that decides how close is close. A tolerance is the size of a known error (rounding, a
finite difference, a solver's setting) times a small factor; where a test needs more than its reason explains, the code
is wrong. Statistical tests share one significance, and each has a mutant that it must reject. Append to your room.
"""

from __future__ import annotations

# ------------------------------------------------------------------------------------------------ shared by all rooms

SIGNIFICANCE = 1e-6
"""Of every statistical test: of a million correct builds one fails. Seeds are fixed, so a pass stays a pass."""

FLOAT64 = 1e-12
"""Relative, for a handful of float64 operations on numbers of order one (rounding is 1e-16)."""

FLOAT32 = 1e-5
"""Relative, for a handful of float32 operations on numbers of order one (rounding is 6e-8)."""

FINITE_DIFFERENCE = 1e-7
"""Relative, for central differences in float64 with step 1e-5: truncation is 1e-10, cancellation 1e-11."""

# ------------------------------------------------------------------------------------------------ leaves

GREY_ROUND_TRIP = 1e-4
"""In grey levels: float32 data to model units and back, 255 levels; rounding is 2e-5 of a level."""

# ------------------------------------------------------------------------------------------------ appended by others

# Networks. float32 outputs of published architectures against the reference, relative to the largest entry.
GOLDEN_SCORE = 1e-4

# Networks. Whole-network outputs printed to six digits by the reference; float32 against float64 differs by 2e-6.
NETWORK_VECTOR = 1e-4

# ------------------------------------------------------------------------------------------------ score

ORACLE_SCORE = 1e-9
"""Relative: an exact score against the gradient of its density, float64. Residuals x - alpha m over sigma >= 1e-6 lose six
of sixteen digits."""

FOKKER_PLANCK = 1e-8
"""Relative: time derivative of an exact log density against the process's rates; terms of size 1e3 cancel."""

SMALL_SIGMA = 1e-10
"""Absolute, data of order one: E[x_0 | x_t] - (x + sigma^2 score) is O(sigma^3) times the score's curvature."""

# Networks. Absolute (or relative for numbers above 1), for layer outputs printed to eight digits by the reference.
PRINTED_LAYER = 1e-6

# Networks. Relative, for the sample deviation of 65536 uniform weights (0.2 percent) and of a printed four-digit number.
INITIAL_SCALE = 5e-3
