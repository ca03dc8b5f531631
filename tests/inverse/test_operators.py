"""Operators against their matrices: adjoints, singular values by structure, what each is by definition, bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from inverse.cases import F64, IMAGE, linear_operators, numbers
from scorefield import inverse as inv
from scorefield.inverse.operators.fourier import BOUNDARIES, Boundary
from scorefield.inverse.operators.operator import LARGEST_MATRIX, Function, LinearOperator, Rescaled
from tolerance import CUT_BLUR, FLOAT32, FLOAT64

CASES = linear_operators()


def subclasses(cls: type) -> set[type]:
    return {cls, *(found for sub in cls.__subclasses__() for found in subclasses(sub))}


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=FLOAT64, atol=FLOAT64)


def test_every_linear_operator_is_tested() -> None:
    known = {cls for cls in subclasses(LinearOperator) if cls.__module__.startswith("scorefield.")}
    assert known - {LinearOperator} == {type(A) for A in CASES}


@pytest.mark.parametrize("A", CASES, ids=lambda A: type(A).__name__)
def test_adjoint_and_singular_values_are_those_of_the_matrix(A: LinearOperator) -> None:
    assert A.check_adjoint() < FLOAT64
    matrix, spectrum = A.matrix(), A.spectrum()
    M, D = matrix.shape
    close(A.adjoint(torch.eye(M, dtype=F64).reshape(M, *A.observed)).reshape(M, D), matrix)
    V = spectrum.right(torch.eye(D, dtype=F64).reshape(D, *A.event))
    close(V @ V.T, torch.eye(D, dtype=F64))
    close(spectrum.right_back(torch.eye(D, dtype=F64)).reshape(D, D), V.T)
    U = spectrum.left_back(torch.eye(D, dtype=F64)).reshape(D, M).T
    seen = spectrum.seen
    close(U[:, seen].T @ U[:, seen], torch.eye(int(seen.sum()), dtype=F64))
    assert not bool(U[:, ~seen].any())
    close(spectrum.left(torch.eye(M, dtype=F64).reshape(M, *A.observed)), U)
    close(U * spectrum.values @ V.T, matrix)
    dense = torch.linalg.svdvals(matrix)
    found, extra = spectrum.values.sort(descending=True).values.split([min(M, D), D - min(M, D)])
    close(found, dense)
    assert not bool((extra > FLOAT64).any())


@pytest.mark.parametrize("A", CASES, ids=lambda A: type(A).__name__)
def test_types_follow_the_input_and_float32_is_close(A: LinearOperator) -> None:
    x = numbers(2, *A.event)
    y, spectrum = A(x), A.spectrum()
    outputs = (A, A.adjoint, spectrum.right, spectrum.left, spectrum.left_back, spectrum.right_back)
    inputs = (x, y, x, y, spectrum.left(y), spectrum.right(x))
    for function, given in zip(outputs, inputs, strict=True):
        exact, single = function(given), function(given.float())
        assert exact.dtype == F64 and single.dtype == torch.float32
        scale = float(exact.abs().max())
        torch.testing.assert_close(single.double(), exact, rtol=0, atol=10 * FLOAT32 * scale)
    assert A(x[:0]).shape == (0, *A.observed)


@pytest.mark.parametrize("A", [A for A in CASES if A.monotone], ids=lambda A: type(A).__name__)
def test_monotone_operators_are(A: LinearOperator) -> None:
    assert bool((A.matrix() >= 0).all())


def test_most_have_their_singular_values_without_a_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for channels of different units, and for noise of its own at every entry."""

    def refuse(self: LinearOperator) -> torch.Tensor:
        raise AssertionError(f"{type(self).__name__} made its matrix")

    monkeypatch.setattr(LinearOperator, "matrix", refuse)
    event = (2, 512, 256)
    scales = torch.tensor([1.0, 3.0], dtype=F64)
    known = torch.arange(256) % 3 > 0
    for A in (
        inv.Mask(known.expand(512, 256), event),
        inv.Convolution.gaussian(3.0, event),
        inv.Downsample(4, event),
        inv.Sums(1, event),
        inv.FourierMask(known.expand(512, 256), event),
    ):
        assert Rescaled(A, scales).spectrum().values.shape == (math.prod(event),)
    seen = inv.Observation.whitened(inv.Mask(known.expand(512, 256), event), torch.tensor(0.0), torch.tensor(0.2))
    assert isinstance(seen.operator, LinearOperator) and float(seen.operator.spectrum().values.max()) == 5.0


# ------------------------------------------------------------------------------------------------ what each one is


@pytest.mark.parametrize("boundary, mode", [("periodic", "wrap"), ("zero", "constant"), ("reflect", "mirror")])
@pytest.mark.parametrize("sizes", [(3, 3), (4, 2), (1, 5)])
def test_convolutions_are_scipys(boundary: Boundary, mode: str, sizes: tuple[int, int]) -> None:
    kernel, x = numbers(*sizes), numbers(1, *IMAGE, seed=1)
    y = inv.Convolution(kernel, IMAGE, boundary)(x)
    for c in range(3):
        expected = ndimage.convolve(x[0, c].numpy(), kernel.numpy(), mode=mode)
        np.testing.assert_allclose(y[0, c].numpy(), expected, atol=FLOAT64)


def test_a_derived_adjoint_can_be_derived_again() -> None:
    """A' A as an operator: its adjoint is taken through the adjoint of A."""
    M = numbers(2, 3)
    A = inv.Linear(lambda x: x @ M.to(x).T, (3,))
    normal = inv.Linear(lambda x: A.adjoint(A(x)), (3,))
    close(normal.adjoint(torch.eye(3, dtype=F64)), M.T @ M)
    assert not inv.Linear(lambda x: torch.zeros(len(x), 2, dtype=x.dtype), (3,)).adjoint(torch.ones(1, 2)).any()


def test_a_point_becomes_the_kernel() -> None:
    kernel = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=F64)
    x = torch.zeros(1, 1, 9, dtype=F64)
    x[..., 4] = 1.0
    for boundary in BOUNDARIES:
        y = inv.Convolution(kernel, (1, 9), boundary)(x)
        close(y[0, 0], torch.tensor([0, 0, 1, 2, 3, 4, 0, 0, 0], dtype=F64))


def test_a_blur_keeps_the_mean_and_adds_its_variance() -> None:
    A = inv.Convolution.gaussian((1.5, 1.0), (1, 41, 31))
    x = torch.zeros(1, 1, 41, 31, dtype=F64)
    x[..., 20, 15] = 1.0
    y = A(x)[0, 0]
    rows, columns = torch.arange(41, dtype=F64) - 20, torch.arange(31, dtype=F64) - 15
    close(y.sum(), torch.tensor(1.0, dtype=F64))
    assert abs(float((y.sum(1) * rows**2).sum()) / 1.5**2 - 1) < CUT_BLUR
    assert abs(float((y.sum(0) * columns**2).sum()) - 1) < CUT_BLUR


def test_downsampling_and_sums() -> None:
    x = numbers(2, *IMAGE)
    close(inv.Downsample(2, IMAGE)(x), torch.nn.functional.avg_pool2d(x, 2))
    close(inv.Sums((1, 2), IMAGE)(x), x.sum((2, 3)))
    close(inv.Sums((0, 1, 2), IMAGE)(x), x.sum((1, 2, 3))[:, None])


def test_grey_and_the_basis_of_colours() -> None:
    x = numbers(2, *IMAGE)
    close(inv.Channels.grey(IMAGE)(x), x.mean(1, keepdim=True))
    basis = torch.tensor(inv.DECOUPLING, dtype=F64)
    close(basis @ basis.T, torch.eye(3, dtype=F64))
    # As released, single precision, rows red, green and blue, a column for each new channel.
    released = [
        [5.7735014e-01, -8.1649649e-01, 4.7008697e-08],
        [5.7735026e-01, 4.0824834e-01, 7.0710671e-01],
        [5.7735026e-01, 4.0824822e-01, -7.0710683e-01],
    ]
    torch.testing.assert_close(basis.T, torch.tensor(released, dtype=F64), rtol=0, atol=FLOAT32)
    close(inv.Channels.decoupled(IMAGE)(x)[:, 0], math.sqrt(3) * x.mean(1))


def test_projections() -> None:
    x = numbers(2, *IMAGE)
    A = inv.Projections((0.0, 90.0, 37.0), IMAGE)
    y = A(x)
    close(y.sum(-1), x.sum((2, 3))[..., None].expand(-1, -1, 3))
    bins = y.shape[-1]
    close(y[:, :, 0, (bins - 6) // 2 : (bins + 6) // 2], x.sum(2))
    close(y[:, :, 1, (bins - 4) // 2 : (bins + 4) // 2], x.sum(3))
    # The mean place of a projection is the projection of the mean place.
    mass = x.abs()
    s = torch.arange(bins, dtype=F64) - (bins - 1) / 2
    rows, columns = torch.arange(4, dtype=F64) - 1.5, torch.arange(6, dtype=F64) - 2.5
    turn = math.radians(37.0)
    middle = (mass.sum(2) * columns).sum(-1) * math.cos(turn) + (mass.sum(3) * rows).sum(-1) * math.sin(turn)
    close((A(mass)[:, :, 2] * s).sum(-1), middle)
    assert inv.Projections(4, IMAGE).angles == (0.0, 45.0, 90.0, 135.0)


def test_measured_frequencies() -> None:
    """y of an example is y of its spectrum, whatever that holds where nothing was measured, with k or -k alone."""
    x, measured = numbers(2, *IMAGE), numbers(4, 6, seed=3) > 0.4
    A = inv.FourierMask(measured, IMAGE)
    f = torch.fft.fftn(x, dim=(2, 3), norm="ortho")
    spoilt = torch.where(measured, f, torch.full_like(f, complex(math.nan, math.nan)))
    close(A.observe(spoilt), A(x))
    close(A.observe(spoilt[0]), A(x)[0])
    assert bool(measured.any()) and int(A.kept.sum()) > 3 * int(measured.sum()), "some opposite ones are not measured"
    share = inv.FourierMask.share(0.25, (1, 16, 16), seed=1)
    assert share.measured[0, 0, 0] and int(share.kept.sum()) in (64, 65)
    with pytest.raises(ValueError, match="complex spectrum"):
        A.observe(x)


def test_a_mask_keeps_what_is_known_alone() -> None:
    A = inv.Mask(torch.tensor([[1, 0], [0, 1]]), (2, 2, 2))
    x = numbers(3, 2, 2, 2)
    assert A.observed == (4,)
    close(A(x), x[:, :, [0, 1], [0, 1]].flatten(1))
    close(A.observe(x[0]), A(x)[0])
    close(A.observe(x), A(x))


def test_composition() -> None:
    x = numbers(2, *IMAGE)
    outer, inner = inv.Sums(0, (3, 2, 3)), inv.Downsample(2, IMAGE)
    close((outer @ inner)(x), outer(inner(x)))
    bent = Function(lambda x: x**2, (3, 2, 3)) @ inner
    assert not isinstance(bent, LinearOperator) and bent.event == IMAGE
    close(bent(x), inner(x) ** 2)
    with pytest.raises(ValueError, match="A @ B applies B first"):
        _ = inner @ outer


# ------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: inv.Mask(torch.ones(4, 5), IMAGE), r"shape \(4, 5\); examples of shape \(3, 4, 6\) need .* \(4, 6\)"),
        (lambda: inv.Mask(torch.eye(4, 6) * 255, IMAGE), "values 0 .* and 1 .* this has 0, 255"),
        (lambda: inv.Mask(numbers(4, 6), IMAGE), r"values 0 .* and 1 .* \.\.\. "),
        (lambda: inv.Mask(torch.full((4, 6), math.nan), IMAGE), "this has nan"),
        (lambda: inv.Mask(torch.zeros(4, 6), IMAGE), "knows nothing"),
        (lambda: inv.Mask(torch.ones(4, 6), IMAGE), r"knows every entry .* Channels\(torch.eye\(3\)"),
        (lambda: inv.Mask(torch.eye(4, 6), IMAGE).observe(torch.zeros(4, 6)), r"shape \(4, 6\); give \(3, 4, 6\)"),
        (lambda: inv.Matrix(numbers(5, 70), IMAGE), r"give \(M, 72\)"),
        (lambda: inv.Matrix(torch.full((5, 72), math.inf), IMAGE), "NaN or infinite"),
        (lambda: inv.Channels(numbers(2, 4), IMAGE), r"give \(K, 3\)"),
        (lambda: inv.Channels.grey((1, 4, 4)), "grey already"),
        (lambda: inv.Channels.decoupled((4, 4, 4)), "red, green and blue"),
        (lambda: inv.Convolution(numbers(3), IMAGE), "one axis for each spatial axis"),
        (lambda: inv.Convolution(numbers(3), (5,)), "one axis for each spatial axis"),
        (lambda: inv.Convolution(numbers(3, 3), IMAGE, "mirror"), "must be one of periodic, zero, reflect"),  # type: ignore[arg-type]
        (lambda: inv.Convolution(numbers(9, 3), IMAGE, "reflect"), "beyond the mirror image"),
        (lambda: inv.Convolution.gaussian(0.0, IMAGE), "positive number of pixels"),
        (lambda: inv.Downsample(4, IMAGE), "multiple of the factor"),
        (lambda: inv.Downsample(0, IMAGE), "multiple of the factor"),
        (lambda: inv.Sums(3, IMAGE), "axes 0 .* to 2"),
        (lambda: inv.Sums((0, -3), IMAGE), "not different axes"),
        (lambda: inv.FourierMask(torch.zeros(4, 6), IMAGE), "no frequency is measured"),
        (lambda: inv.FourierMask(torch.ones(6, 4), IMAGE), r"give \(4, 6\)"),
        (lambda: inv.FourierMask.share(0.0, IMAGE), r"must be in \(0, 1\]"),
        (lambda: inv.Projections(0, IMAGE), "positive number of angles"),
        (lambda: inv.Projections(3, (2, 7)), "projections are of images"),
        (lambda: inv.Linear(lambda x: x + 1.0, (3,)), "is not linear: .* an offset belongs to y"),
        (lambda: inv.Linear(lambda x: 2 * x, (3,), adjoint=lambda y: y), "dot-product test: <A x, y> = .* and <x, A'"),
        (
            lambda: inv.Linear(lambda x: x.flatten(1), (2, 3), adjoint=lambda y: y),
            r"adjoint of Linear gives \(1, 6\) for y of shape \(1, 6\); it must give \(1, 2, 3\)",
        ),
        (lambda: inv.Downsample(2, IMAGE)(numbers(1, 3, 4, 5)), r"takes \(B, 3, 4, 6\); got \(1, 3, 4, 5\)"),
    ],
)
def test_refusals(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        make()


def test_a_matrix_that_is_too_large_is_refused() -> None:
    A = inv.Convolution.gaussian(1.0, (1, 65, 65), "zero")
    assert 65**4 > LARGEST_MATRIX
    with pytest.raises(ValueError, match="4225 x 4225, which is too large"):
        A.spectrum()
