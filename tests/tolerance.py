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
"""Relative: an exact score against the gradient of its density, float64. Residuals x - alpha m over sigma >= 1e-6 lose
six of sixteen digits."""

FOKKER_PLANCK = 1e-8
"""Relative: time derivative of an exact log density against the process's rates; terms of size 1e3 cancel."""

FORM_ROUND_TRIP = 1e-7
"""Relative: score -> F -> score through a network's output in float64; alpha D - x cancels at sigma = 1e-6."""

SMALL_SIGMA = 1e-10
"""Absolute, data of order one: rounding of E[x_0 | x_t] at sigma = 1e-12 in float64."""

# Networks. Absolute (or relative for numbers above 1), for layer outputs printed to eight digits by the reference.
PRINTED_LAYER = 1e-6

# Networks. Relative, for the sample deviation of 65536 uniform weights (0.2 percent) and of a printed four-digit
# number.
INITIAL_SCALE = 5e-3

PLANE_QUADRATURE = 1e-8
"""Absolute: sums over a grid of smooth, decaying functions (spectrally accurate), steps below half of their width."""

# Processes. A difference of two noise variances, relative to the larger: rounding 1e-16 times a cancellation of 1e4.
KERNEL = 1e-10

# Processes. A time found by bisection on [0, 1] (60 halvings) where the clock's slope is small, relative.
BISECTION = 1e-8

# Processes. Gauss-Legendre with 40 nodes against a difference of variances that loses up to 5 digits.
QUADRATURE = 1e-9

# Processes. log sigma^2 in float32, absolute: 2 times 6e-8 over sigma's own relative rounding at t = 1e-5, times 10.
SMALL_TIME_FLOAT32 = 1e-4

# ------------------------------------------------------------------------------------------------ losses

LOSS_CLOSED_FORM = 1e-9
"""Relative: a loss at an exact score, float64; sigma s + z cancels where the noise is small."""

QUADRATURE = 1e-9
"""Absolute, for integrals of order one of smooth functions against N(0, 1) with 100 Gauss-Hermite nodes."""

# Processes. Numbers printed to seven or eight digits by the float32 reference, relative; float32 rounding is 6e-8, and
# 1 - exp(-B) at t = 1e-5 lost four of its digits there before it was squared.
SEVEN_DIGITS = 1e-5

# Processes. Numbers printed to six digits, or differences of neighbouring levels in float32 (6e-8 over gaps of 4e-3),
# relative.
SIX_DIGITS = 5e-5

# Processes. The rounding of a float32 near one, absolute.
ROUNDED_ONE = 6e-8

# Processes. Coefficients of the release computed in float32, differences of neighbouring levels included, relative.
GOLDEN_PROCESS = 2e-4

# Networks. Relative to the largest entry; some hundred layers deep, rounding grows by a factor of a thousand at most.
FLOAT64_NETWORK = 1e-12
FLOAT32_NETWORK = 2e-5

# Networks. bfloat16 keeps 8 bits, 4e-3 relative; a small random network sums a few dozen of such errors.
AUTOCAST_BFLOAT16 = 6e-2

GOLDEN_LOSS = 1e-4
"""Relative, float32: GOLDEN_SCORE allows as much to the score, and the noise in the residual shares it."""

MOMENT_EQUATIONS = 1e-6
"""Relative: laws of a general SDE from Runge-Kutta steps that change them by 1e-9, divided by sigma^2."""

# Networks. Relative, for a largest entry that the reference prints with one digit.
INITIAL_EXTREME = 0.05

# ------------------------------------------------------------------------------------------------ metrics

FRECHET = 1e-10
"""Relative to the traces: roots of eigenvalues of covariances with condition numbers up to 1e4, float64."""

FRECHET_NEAR_ZERO = 1e-5
"""Relative.

Of a distance of 1e-18 between covariances of order one: their roots differ by 1e-9 with rounding 1e-16 each.
"""

QUANTILE_GRID = 2e-3
"""Relative, W_2^2 between 4,001 midpoint quantiles of Gaussians and the closed form: what the cut tails hold."""

DIGITS_ACCURACY = 0.93
"""Held-out accuracy that a feature classifier reaches on the 8x8 digits after 60 steps (measured: 0.98)."""

TOY_ACCURACY = 0.9
"""Held-out accuracy on classes that are far apart (measured: 1.0)."""

# Processes. Laws of affine SDEs: the steps that make them are doubled until they change by less than 1e-8, and those
# kept are 16 times as good; relative, or absolute on numbers of order one.
LAW = 1e-9

# Processes. Laws against SciPy's DOP853 at rtol 1e-12, relative.
REFERENCE_SOLVER = 1e-8

# Processes. Moments carried to t = 1 and back by 400 Runge-Kutta steps; going back multiplies errors by up to e^8.
REVERSED = 1e-5

# Of a measured order of convergence, for every room: |measured - declared|.
ORDER = 0.15

# Processes. Numbers of the papers printed to four decimals, absolute, and to three digits, relative.
FOUR_DECIMALS = 1e-4
THREE_DIGITS = 5e-3

# ------------------------------------------------------------------------------------------------ inference

FLOW_DENSITY = 3e-5
"""Nats or model units: the flow at a solver tolerance of 1e-6 a step, over up to fifty steps."""

PRIOR_MISMATCH = 0.15
"""Nats: what the prior differs from p_1 for data of order one, VE with sigma_max = 20 the most."""

FLOW_MASS = 1e-4
"""Of one: mass of a smooth density on a grid of step 0.1, at a solver tolerance of 1e-6."""

FLOW_FLOAT32 = 2e-4
"""Nats or model units: a float32 network, or another order of float64 sums, at the default solver tolerance 1e-5."""

FLOW_STEPS = 6
"""Evaluations: an error estimate at the edge of the tolerance may be rounded to either side.

One attempt more or less.
"""

# Sampling. Measured against declared orders of steps, in the exponent, at the grids of `lab.selftest.orders`.
ORDER = 0.15

# Sampling. How far, relative, a chain of affine steps may be from affine: rounding over a hundred float64 steps.
AFFINE = 1e-9

# ------------------------------------------------------------------------------------------------ data

MERGED_MOMENTS = 1e-9
"""Relative, for float64 means and deviations merged chunk by chunk, of numbers up to a million deviations from zero."""

HALF_TONE = 1.0
"""In grey levels of 255: black and white stripes averaged by an antialiasing filter and rounded to 8 bits."""

SAMPLED_MEAN = 0.03
"""In units of the range: mean of 1000 images or more against the published mean; its standard error is 0.006."""

# Sampling. One step, relative, against numbers that a float32 implementation printed to seven digits: the squares of
# its neighbouring sigmas, 2500 and 2458, are subtracted. And absolute: 1 - exp(-B) at t = 1e-3 has four digits there.
STEP_VECTOR = 1e-5
STEP_VECTOR_SMALL = 1e-6

# Sampling. One step of a reference network with its score given, float32 against our float64 coefficients, of the
# largest entry; the reference's float32 table of levels is off by 1e-6.
GOLDEN_STEP = 1e-5

# Sampling. Scalar chains in float64 against numbers printed to eleven digits.
CHAIN_VECTOR = 1e-10

BITS = 5e-5
"""Bits per dimension: an analytic score at the default solver tolerance, as the reference's own check."""

GOLDEN_FLOW = 1e-3
"""Relative to the largest entry: samples of published networks by the flow, the reference at a tolerance of 1e-6."""

GOLDEN_BITS = 5e-3
"""Bits per dimension of published networks: the reference's own solver shares one error among the batch."""

# Sampling. Relative, for variances at the fixed point of a float64 iteration of some thousand steps.
STATIONARY = 1e-8

# Sampling. Absolute error of the adaptive flow at tolerances 1e-5 to 1e-7, whose local errors add up over some tens of
# steps; and at 1e-8 and 1e-9.
SOLVER = 1e-4
TIGHT_SOLVER = 1e-6

# Sampling. An oracle's sums of a few terms may round in another order in another batch: absolute, float64.
BATCH_MATES = 1e-10

LEADING_ORDER = 0.1
"""Relative: the gap of dequantisation against the first term of its expansion in the width of a bin, sixteen bins."""

# Sampling. Samples of the same (seed, index) in batches of other sizes, relative to the largest: the noise is
# bit-equal, but float32 matrix products round differently. Over a few fixed steps; and where an adaptive solver of
# tolerance 1e-5 chooses its steps by such numbers.
SAMPLES_EQUAL = 1e-5
SAMPLES_EQUAL_ADAPTIVE = 2e-4

SAMPLES_OF_ANOTHER_BATCH = 1e-4
"""Relative to the data's range: the same sample drawn in a batch of another size. The network's kernels sum in another
order (1e-6 of its output), and a few hundred steps add that up."""

MOMENTS_FAR_AWAY = 1e-8
"""Absolute, covariance of order one of rows near 1e7: the rows themselves are rounded to 2e-9."""

NEAR_COPIES = 0.3
"""Memorisation ratio of training points moved by 0.05 of their spread in each of 6 dimensions (measured: 0.09)."""

CLEARLY_WORSE = 2.0
"""Frechet distance of noisy digits, or of ones alone, over that of a second real split (measured: 3.4, 68)."""

# Sampling. Relative error of mean and of covariance that named samplers leave in 60 (flows) or 100 steps on VE, VP and
# sub-VP: twice what their orders were measured to leave. flow-heun's is the mismatch of the prior, which has mean 0.
ARRIVAL = {
    "pc": 0.06,
    "em": 0.03,
    "reverse-diffusion": 0.12,
    "ancestral": 0.17,
    "flow-euler": 0.6,
    "flow-heun": 0.08,
}

# Sampling. The last published VP step against the posterior mean, absolute: they differ by terms of order beta^2, 4e-5
# here, times scores of order 10.
DENOISED = 5e-4

# Networks. Absolute, float32 normalisation of numbers with mean 4 deviations: the variance loses 4^2 roundings twice.
LARGE_NORM = 5e-5

GOLDEN_LATENT = 5e-2
"""Relative, norm: the reference's latents at its tolerance 1e-5; ours at a tenth of it differ by two percent."""

# Networks. Relative: numbers of float64 outputs that a float64 reference printed to eight digits.
EIGHT_DIGITS = 1e-7

TWO_ROUNDED_PASSES = 1.01
"""In grey levels: an 8-bit image resized along one axis and then the other, each result rounded to half a level."""

# Networks. Relative, of a first loss that is a mean of |z|^2 / D, eight draws of 3072 numbers (0.9 percent).
INITIAL_LOSS = 0.05

POWER_ITERATION = 0.1
"""Relative: the largest singular value of a random convolution after fifteen power iterations (measured: 0.02)."""

# Checkpoint import. float64 networks given the noise level by two formulas: a time is found from sigma and sigma from
# it (1e-15), and Fourier phases multiply that by 300.
NETWORK_OF_SIGMA = 1e-10

# Metrics. Relative: the mean of jackknife standard errors against the spread of 400 values, itself known to 4 percent.
JACKKNIFE_RATIO = 0.15

# Inference. Root mean square of errors over their stated standard errors, less one: 200 errors with heavier tails than
# normal ones scatter by 0.08 (measured: 0.97 to 1.09).
CALIBRATED = 0.3

TRUNCATED = 1e-6
"""Nats: what the straight line through two rates leaves of a truncation of 0.01, at s = 1e-3 of VP (measured: 1e-7)."""

DENSE = 1e-5
"""Absolute error of states inside steps of a solver of tolerance 1e-7; the interpolant is of order 4."""

# Sampling. Relative to the largest term: weights of exponential methods in float64, divided differences of up to four
# nodes a third of a step apart.
EXPONENTIAL_WEIGHTS = 1e-11

# Sampling. Eight steps with weights by quadrature (1.5e-8 by SciPy's default) against the recursion's.
WEIGHTS_OF_CHAINS = 1e-7

# Sampling. Absolute: ends of the flow of a mixture in 60 steps of order 3 and 4.
FEW_STEPS = 3e-3

# Choosing. Absolute: the flow of a Gaussian by a solver of tolerance 1e-6 to 1e-5, against its closed form; numbers of
# order one.
FLOW_OF_A_GAUSSIAN = 1e-4

# Choosing. Relative: an exact power law through its own points, and an interval's ends beside it.
INTERPOLATED = 1e-9

# Sampling. Two formulas for one step in float64, through times found by inversion and powers of small noise levels;
# and chains of some such steps.
ONE_STEP = 1e-9
STEP_CHAINS = 1e-8

# Sampling. Of the spread within narrow modes, relative: 6000 numbers have a standard error of 0.9 percent.
SPREAD = 0.03

# Sampling. Two second-order integrators of one flow in 200 steps.
TWO_INTEGRATORS = 1e-3

# Modes. Of the mean over 60 histograms of 5000 samples in 1000 modes, nats: standard error 0.0008 and a bias of 2e-4
# at most; five of them. A plug-in histogram is off by 0.05 to 0.1.
MODES_WITHOUT_BIAS = 0.004

# Modes. Absolute, nats: 200,000 samples after a deconvolution, which leaves 0.6 percent of them in modes that only
# errors reach and finds 0.041 too little; without it 0.40 are missing.
CLOSE_TO_INFINITELY_MANY = 0.06

EXACT_NOISE = 1e-12
"""Relative: the noise of consistent annealing in float64 after up to 2311 levels, each with some roundings."""

BF16_SAMPLES = 0.05
"""Root mean square over that of the samples: thirty steps of a network of eight bits, each with roundings of 4e-3."""

# Chains. Absolute: mean acceptance of 144 proposals in 3072 dimensions, whose standard error is 0.004, and what the
# asymptotic formula leaves out (0.002).
ACCEPTANCE = 0.02

# Chains. Absolute: acceptance after tuning on 48 pilot chains, whose step is known to ten percent.
TUNED_ACCEPTANCE = 0.06

# Chains. Relative: effective sample sizes estimated from 40 chains of 1500 draws (the largest of twelve
# errors; alternating chains are worth 9 percent less than the truncated sum says).
EFFECTIVE_SIZE = 0.15

# Chains. At least this share of 1200 draws is effective where trajectories are a period on average (measured: 0.96 or
# more; 0.017 where all have that length).
PERIODIC_WORTH = 0.3

# Methods on equal terms: largest over smallest number of parameters. Embeddings differ by 1 percent, an energy is
# matched to within one channel, up to 3 percent at 30 channels.
ALIKE_SIZES = 1.05

# Inverse problems. Relative: a normal law cut at four deviations loses 0.11 percent of its variance, on a grid.
CUT_BLUR = 2e-3

# Guided solvers. Relative: guided scores against exact scores of posteriors, float64, through solves of small systems
# and posterior means divided by sigma^2 (smallest 1e-3 here).
GUIDED_SCORE = 1e-8

# Langevin posteriors. Of the ratio of two errors whose steps are halved; the next order is a few percent.
HALVED_STEP = 0.03

CONJUGATE = 1e-4
"""Absolute, data of order one: conjugate gradients end at 1e-5 of the first residual."""

# Guided solvers on mixtures of 2 and 8 dimensions, the larger of the error of the mean, in deviations, and that of the
# covariance, relative, of 192 samples (exact ones: 0.19). Moment matching puts samples into a mode of little weight
# (measured: 0.16 and 1.7; pigdm 0.16 and 0.19). The prior is off by 1.45 and 29.
POSTERIORS = {"pigdm": {2: 0.4, 8: 0.4}, "moment-matched": {2: 0.4, 8: 2.5}}
PRIOR_OFF = 1.3

# The same of a Langevin chain of 400 steps at its last level (measured: 0.82, after 12.6 without them).
SETTLED = 1.0

INFINITESIMAL = 0.25
"""Paired differences. What deleting one of 24 samples does against its first-order term, of the largest: 1 / n and the
curvature of the metric (measured: 0.19 at most)."""

# Score doctor. Squared residual of the Fokker-Planck equation of an exact score, relative: a central difference over
# 2e-3 of the time (measured: 2e-8 or less).
SCORE_FOKKER_PLANCK = 1e-6
