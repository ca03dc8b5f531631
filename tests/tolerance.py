"""Every tolerance of the test suite, named, with the reason for its size: `from tolerance import FLOAT32`.

No test file contains a number that decides whether two results are equal. A tolerance is the size of a known error
(rounding, a finite difference, the setting of a solver) times a small factor; a test that needs more than its reason
explains shows an error of the code. Statistical tests share one significance, and each has a mutant that it must
reject. Add a tolerance to the section of its package.
"""

from __future__ import annotations

# ------------------------------------------------------------------------------------------------ all packages

SIGNIFICANCE = 1e-6
"""Two-sided significance of every statistical test: one correct build in a million fails. Seeds are fixed, so that a
test that passes on a machine passes there again."""

FLOAT64 = 1e-12
"""Relative: a handful of float64 operations on numbers of order one (rounding is 1e-16)."""

FLOAT32 = 1e-5
"""Relative: a handful of float32 operations on numbers of order one (rounding is 6e-8)."""

FINITE_DIFFERENCE = 1e-7
"""Relative: central differences in float64 with step 1e-5; truncation is 1e-10, cancellation 1e-11."""

ORDER = 0.15
"""Absolute: measured minus declared order of convergence, on the grids of `scorefield.selftest.orders`."""

GREY_ROUND_TRIP = 1e-4
"""Grey levels: float32 data of 255 levels to model units and back; rounding is 2e-5 of a level."""

# Numbers printed by a reference, relative unless stated otherwise.

SEVEN_DIGITS = 1e-5
"""Relative: numbers that a float32 reference printed to seven or eight digits. Rounding is 6e-8, and 1 - exp(-B) at t =
1e-5 lost four of its digits before it was squared."""

SIX_DIGITS = 5e-5
"""Relative: numbers printed to six digits, or differences of neighbouring levels in float32 (6e-8 over gaps of
4e-3)."""

EIGHT_DIGITS = 1e-7
"""Relative: numbers that a float64 reference printed to eight digits."""

THREE_DIGITS = 5e-3
"""Relative: numbers that the papers print to three digits."""

FOUR_DECIMALS = 1e-4
"""Absolute: numbers that the papers print to four decimals."""

# ------------------------------------------------------------------------------------------------ process

KERNEL = 1e-10
"""Relative to the larger of two noise variances: their difference; rounding 1e-16 times a cancellation of 1e4."""

BISECTION = 1e-8
"""Relative: a time found by bisection on [0, 1] (60 halvings) where the slope of the noise level is small."""

QUADRATURE = 1e-9
"""Relative: Gauss-Legendre with 40 nodes against a difference of variances that loses up to five digits. Absolute:
integrals of order one of smooth functions against N(0, 1) with 100 Gauss-Hermite nodes."""

SMALL_TIME_FLOAT32 = 1e-4
"""Absolute: log sigma^2 in float32; 2 times 6e-8 over sigma's own relative rounding at t = 1e-5, times 10."""

ROUNDED_ONE = 6e-8
"""Absolute: the rounding of a float32 number near one."""

GOLDEN_PROCESS = 2e-4
"""Relative: coefficients that a reference computed in float32, with differences of neighbouring levels among them."""

MOMENT_EQUATIONS = 1e-6
"""Relative: moments of a general SDE by Runge-Kutta steps that change them by 1e-9, divided by sigma^2."""

LAW = 1e-9
"""Relative, or absolute for numbers of order one: moments of affine SDEs. The number of steps is doubled until moments
change by less than 1e-8, and the last result is 16 times as accurate."""

REFERENCE_SOLVER = 1e-8
"""Relative: moments of SDEs against SciPy's DOP853 at rtol 1e-12."""

REVERSED = 1e-5
"""Relative: moments carried to t = 1 and back by 400 Runge-Kutta steps; the way back multiplies errors by up to e^8."""

# ------------------------------------------------------------------------------------------------ nets

GOLDEN_SCORE = 1e-4
"""Relative to the largest entry: float32 outputs of published architectures against the reference."""

NETWORK_VECTOR = 1e-4
"""Relative: whole-network outputs that the reference printed to six digits; float32 and float64 differ by 2e-6."""

PRINTED_LAYER = 1e-6
"""Absolute, or relative for numbers above 1: layer outputs that the reference printed to eight digits."""

INITIAL_SCALE = 5e-3
"""Relative: the sample deviation of 65536 uniform weights (0.2 percent), and a printed number of four digits."""

INITIAL_EXTREME = 0.05
"""Relative: a largest entry that the reference prints with one digit."""

INITIAL_LOSS = 0.05
"""Relative: a first loss that is a mean of |z|^2 / D over eight draws of 3072 numbers (0.9 percent)."""

FLOAT64_NETWORK = 1e-12
FLOAT32_NETWORK = 2e-5
"""Relative to the largest entry: networks of some hundred layers, in which rounding grows a thousandfold at most."""

AUTOCAST_BFLOAT16 = 6e-2
"""Relative: bfloat16 keeps 8 bits, 4e-3, and a small random network sums a few dozen of such errors."""

LARGE_NORM = 5e-5
"""Absolute: float32 normalisation of numbers with mean 4 deviations; the variance loses 4^2 roundings twice."""

POWER_ITERATION = 0.1
"""Relative: the largest singular value of a random convolution after fifteen power iterations (measured: 0.02)."""

# ------------------------------------------------------------------------------------------------ score

ORACLE_SCORE = 1e-9
"""Relative: an exact score against the gradient of its log density in float64. Residuals x - alpha m divided by sigma
>= 1e-6 lose six of sixteen digits."""

FOKKER_PLANCK = 1e-8
"""Relative: the time derivative of an exact log density against the rates of the process; terms of size 1e3 cancel."""

FORM_ROUND_TRIP = 1e-7
"""Relative: score -> F -> score through a network's output in float64; alpha D - x cancels at sigma = 1e-6."""

SMALL_SIGMA = 1e-10
"""Absolute, for data of order one: rounding of E[x_0 | x_t] at sigma = 1e-12 in float64."""

PLANE_QUADRATURE = 1e-8
"""Absolute: sums over a grid of smooth, decaying functions (spectrally accurate), with steps below half of their
width."""

# ------------------------------------------------------------------------------------------------ losses

LOSS_CLOSED_FORM = 1e-9
"""Relative: a loss at an exact score in float64; sigma s + z cancels where the noise is small."""

GOLDEN_LOSS = 1e-4
"""Relative, float32: GOLDEN_SCORE allows as much for the score, and the noise in the residual is the same."""

# ------------------------------------------------------------------------------------------------ sampling

AFFINE = 1e-9
"""Relative: deviation of a chain of affine steps from an affine map; rounding over a hundred float64 steps."""

STEP_VECTOR = 1e-5
STEP_VECTOR_SMALL = 1e-6
"""Relative and absolute: one step against numbers that a float32 implementation printed to seven digits. It subtracts
the squares of neighbouring sigmas, 2500 and 2458; and 1 - exp(-B) at t = 1e-3 has four digits there."""

GOLDEN_STEP = 1e-5
"""Relative to the largest entry: one step of a reference with its score given, float32 against our float64
coefficients; the reference's float32 table of levels is off by 1e-6."""

CHAIN_VECTOR = 1e-10
"""Absolute: scalar chains in float64 against numbers printed to eleven digits."""

STATIONARY = 1e-8
"""Relative: variances at the fixed point of a float64 iteration of some thousand steps."""

SOLVER = 1e-4
TIGHT_SOLVER = 1e-6
"""Absolute: errors of the adaptive flow at tolerances 1e-5 to 1e-7, whose local errors add up over some tens of steps;
and at tolerances 1e-8 and 1e-9."""

DENSE = 1e-5
"""Absolute: states inside steps of a solver of tolerance 1e-7; the interpolant has order 4."""

BATCH_MATES = 1e-10
"""Absolute, float64: an oracle sums a few terms, which may be rounded in another order in another batch."""

SAMPLES_EQUAL = 1e-5
SAMPLES_EQUAL_ADAPTIVE = 2e-4
"""Relative to the largest: samples of the same (seed, index) in batches of other sizes. The noise is bit-equal, but
float32 matrix products round differently: over a few fixed steps, and where an adaptive solver of tolerance 1e-5
chooses its steps by such numbers."""

SAMPLES_OF_ANOTHER_BATCH = 1e-4
"""Relative to the data's range: the same sample of a network drawn in a batch of another size. The network's kernels
sum in another order (1e-6 of its output), which adds up over a few hundred steps."""

ARRIVAL = {
    "pc": 0.06,
    "em": 0.03,
    "reverse-diffusion": 0.12,
    "ancestral": 0.17,
    "flow-euler": 0.6,
    "flow-heun": 0.08,
}
"""Relative: errors of mean and covariance of named samplers after 60 (flows) or 100 steps on VE, VP and sub-VP, twice
what their orders were measured to leave. That of flow-heun is the mismatch of the prior, which has mean 0."""

DENOISED = 5e-4
"""Absolute: the last published VP step against the posterior mean; they differ by terms of order beta^2, here 4e-5,
times scores of order 10."""

EXPONENTIAL_WEIGHTS = 1e-11
"""Relative to the largest term: weights of exponential methods in float64, divided differences of up to four nodes a
third of a step apart."""

WEIGHTS_OF_CHAINS = 1e-7
"""Absolute: eight steps with weights by quadrature (1.5e-8 by SciPy's default) against those of the recursion."""

FEW_STEPS = 3e-3
"""Absolute: end points of the flow of a mixture in 60 steps of order 3 and 4."""

ONE_STEP = 1e-9
STEP_CHAINS = 1e-8
"""Relative: two formulas for one step in float64, with times found by inversion and powers of small noise levels; and
chains of several such steps."""

SPREAD = 0.03
"""Relative: the spread within narrow modes; of 6000 numbers it has a standard error of 0.9 percent."""

TWO_INTEGRATORS = 1e-3
"""Absolute: two second-order integrators of one flow in 200 steps."""

EXACT_NOISE = 1e-12
"""Relative: the noise of consistent annealing in float64 after up to 2311 levels, each with several roundings."""

BF16_SAMPLES = 0.05
"""Root mean square over that of the samples: thirty steps of a network of eight bits, each with roundings of 4e-3."""

# ------------------------------------------------------------------------------------------------ likelihood

FLOW_DENSITY = 3e-5
"""Nats or model units: the flow at a solver tolerance of 1e-6 per step, over up to fifty steps."""

PRIOR_MISMATCH = 0.15
"""Nats: difference of the prior from p_1 for data of order one; largest for VE with sigma_max = 20."""

FLOW_MASS = 1e-4
"""Relative to one: mass of a smooth density on a grid of step 0.1, at a solver tolerance of 1e-6."""

FLOW_FLOAT32 = 2e-4
"""Nats or model units: a float32 network, or another order of float64 sums, at the default solver tolerance 1e-5."""

FLOW_STEPS = 6
"""Network evaluations: an error estimate at the edge of the tolerance may be rounded to either side, which makes one
attempted step more or less."""

BITS = 5e-5
"""Bits per dimension: an analytic score at the default solver tolerance, as in the reference's own check."""

GOLDEN_FLOW = 1e-3
"""Relative to the largest entry: samples of published networks by the flow; the reference has a tolerance of 1e-6."""

GOLDEN_BITS = 5e-3
"""Bits per dimension of published networks: the reference's solver has one error estimate for the whole batch."""

GOLDEN_LATENT = 5e-2
"""Relative, by norms: the reference's latents at its tolerance 1e-5; ours at a tenth of it differ by two percent."""

LEADING_ORDER = 0.1
"""Relative: the gap of dequantisation against the first term of its expansion in the width of a bin, sixteen bins."""

CALIBRATED = 0.3
"""Absolute: root mean square of 200 errors over their stated standard errors, less one. Errors with heavier tails than
normal ones scatter by 0.08 (measured: 0.97 to 1.09)."""

TRUNCATED = 1e-6
"""Nats: error of the straight line through two rates for a truncation of 0.01, at s = 1e-3 of VP (measured: 1e-7)."""

FLOW_OF_A_GAUSSIAN = 1e-4
"""Absolute, numbers of order one: the flow of a Gaussian by a solver of tolerance 1e-6 to 1e-5 against its closed
form."""

# ------------------------------------------------------------------------------------------------ energy

ACCEPTANCE = 0.02
"""Absolute: mean acceptance of 144 proposals in 3072 dimensions, with a standard error of 0.004, against the asymptotic
formula, whose error is 0.002."""

TUNED_ACCEPTANCE = 0.06
"""Absolute: acceptance after tuning on 48 pilot chains, by which the step is known to ten percent."""

EFFECTIVE_SIZE = 0.15
"""Relative: effective sample sizes estimated from 40 chains of 1500 draws (the largest of twelve errors; for
alternating chains the truncated sum is 9 percent too large)."""

PERIODIC_WORTH = 0.3
"""Share of 1200 draws that is effective where trajectories have the length of a period on average (measured: 0.96 or
more; 0.017 where all have that length)."""

# ------------------------------------------------------------------------------------------------ inverse

CUT_BLUR = 2e-3
"""Relative: a normal distribution cut at four deviations loses 0.11 percent of its variance, on a grid."""

GUIDED_SCORE = 1e-8
"""Relative: guided scores against exact scores of posteriors in float64, through solutions of small systems and
posterior means divided by sigma^2 (smallest 1e-3 here)."""

HALVED_STEP = 0.03
"""Relative: the ratio of two errors of posterior Langevin dynamics whose steps are halved; the next order is a few
percent."""

CONJUGATE = 1e-4
"""Absolute, data of order one: conjugate gradients end at 1e-5 of the first residual."""

POSTERIORS = {"pigdm": {2: 0.4, 8: 0.4}, "moment-matched": {2: 0.4, 8: 2.5}}
"""The larger of the error of the mean, in deviations, and the relative error of the covariance, of 192 samples of
guided solvers on mixtures of 2 and 8 dimensions (exact samples: 0.19). Moment matching puts samples into a mode of
little weight (measured: 0.16 and 1.7; pigdm 0.16 and 0.19)."""

PRIOR_OFF = 1.3
"""The same for samples of the prior, which must exceed this number (measured: 1.45 and 29)."""

SETTLED = 1.0
"""The same for a Langevin chain of 400 steps at its last level (measured: 0.82, and 12.6 without these steps)."""

# ------------------------------------------------------------------------------------------------ metrics

FRECHET = 1e-10
"""Relative to the traces: roots of eigenvalues of covariances with condition numbers up to 1e4, float64."""

FRECHET_NEAR_ZERO = 1e-5
"""Relative: a distance of 1e-18 between covariances of order one, whose roots differ by 1e-9 with roundings of
1e-16."""

QUANTILE_GRID = 2e-3
"""Relative: W_2^2 between 4,001 midpoint quantiles of Gaussians and the closed form; the tails beyond them are
missing."""

DIGITS_ACCURACY = 0.93
"""Held-out accuracy that a feature classifier reaches on the 8x8 digits after 60 steps (measured: 0.98)."""

TOY_ACCURACY = 0.9
"""Held-out accuracy on classes that are far apart (measured: 1.0)."""

MERGED_MOMENTS = 1e-9
"""Relative: float64 means and deviations merged chunk by chunk, of numbers up to a million deviations from zero."""

MOMENTS_FAR_AWAY = 1e-8
"""Absolute: a covariance of order one of rows near 1e7, which are themselves rounded to 2e-9."""

NEAR_COPIES = 0.3
"""Memorisation ratio of training points moved by 0.05 of their spread in each of 6 dimensions (measured: 0.09)."""

CLEARLY_WORSE = 2.0
"""Frechet distance of noisy digits, or of ones only, over that of a second real split (measured: 3.4, 68)."""

JACKKNIFE_RATIO = 0.15
"""Relative: the mean of jackknife standard errors against the spread of 400 values, which is known to 4 percent."""

INFINITESIMAL = 0.25
"""Relative to the largest: the effect of deleting one of 24 samples against its first-order term; 1 / n and the
curvature of the metric (measured: 0.19 at most)."""

MODES_WITHOUT_BIAS = 0.004
"""Nats: the mean over 60 histograms of 5000 samples in 1000 modes; five times the standard error 0.0008, and a bias of
2e-4 at most. A plug-in histogram is off by 0.05 to 0.1."""

CLOSE_TO_INFINITELY_MANY = 0.06
"""Nats: 200,000 samples after a deconvolution, which leaves 0.6 percent of them in modes that are reached by errors
only and finds 0.041 too little; without it 0.40 are missing."""

# ------------------------------------------------------------------------------------------------ data

HALF_TONE = 1.0
"""Grey levels of 255: black and white stripes averaged by an antialiasing filter and rounded to 8 bits."""

SAMPLED_MEAN = 0.03
"""Relative to the range: the mean of 1000 images or more against the published mean; its standard error is 0.006."""

TWO_ROUNDED_PASSES = 1.01
"""Grey levels: an 8-bit image resized along one axis and then the other, each result rounded to half a level."""

# ------------------------------------------------------------------------------------------------ interop

NETWORK_OF_SIGMA = 1e-10
"""Relative: float64 networks whose noise level is given by two formulas. A time is found from sigma and sigma from it
(1e-15), and Fourier phases multiply the difference by 300."""

# ------------------------------------------------------------------------------------------------ evaluation
# The score doctor of `diagnostics` has its tolerance here too.

INTERPOLATED = 1e-9
"""Relative: an exact power law through its own points, and the ends of an interval beside it."""

SCORE_FOKKER_PLANCK = 1e-6
"""Relative: squared residual of the Fokker-Planck equation of an exact score, by a central difference over 2e-3 of the
time (measured: 2e-8 or less)."""

# ------------------------------------------------------------------------------------------------ studies

ALIKE_SIZES = 1.05
"""Largest over smallest number of parameters of the compared methods. Embeddings differ by 1 percent, and an energy is
matched to within one channel, up to 3 percent at 30 channels."""
