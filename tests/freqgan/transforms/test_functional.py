"""torch.func and forward-mode differentiation of all transforms, against loops over images and dense Jacobians."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import grad, hessian, jacfwd, jacrev, jvp, linearize, vmap

from freqgan.bands import Band
from freqgan.transforms import BandTransform, integer_wavedec2, integer_waverec2, parse_transform, wavedec2, waverec2
from tests.support.transform_inputs import flat, named
from tests.support.transforms import SPECS, assert_same, coarsest_and_high, image

Function = Callable[..., tuple[Tensor, ...]]
BOUND = 1e-11


@pytest.fixture(params=[*SPECS, "packets"])
def transform(request: pytest.FixtureRequest) -> BandTransform:
    return named(request.param)


def analysis(transform: BandTransform) -> Function:
    return lambda pixels: tuple(transform.analyse(pixels).values())


def synthesis(transform: BandTransform, size: tuple[int, int]) -> tuple[Function, list[Tensor]]:
    """Of sub-images in the order of a list, and such a list."""
    bands = coarsest_and_high(transform.analyse(image(2, 1, *size, dtype=torch.float64)), transform.levels)
    names = list(bands)
    return lambda *parts: (transform.synthesise(dict(zip(names, parts, strict=True)), size),), list(bands.values())


def bent(function: Function) -> Callable[..., Tensor]:
    """One number, of which second derivatives are not zero."""
    return lambda *x: torch.stack([(y**3).sum() * i for i, y in enumerate(function(*x), start=1)]).sum()


def batch(count: int, *shape: int) -> Tensor:
    return image(count, *shape, dtype=torch.float64)


def assert_close(ours: tuple[Tensor, ...] | Tensor, expected: tuple[Tensor, ...] | Tensor) -> None:
    torch.testing.assert_close(ours, expected, rtol=0, atol=BOUND)


def looped(function: Function, *batches: Tensor) -> tuple[Tensor, ...]:
    return tuple(torch.stack(parts) for parts in zip(*map(function, *batches), strict=True))


def dense(function: Function, at: Tensor) -> tuple[Tensor, ...]:
    """Its Jacobian, for it is linear: what it makes of images with one pixel each."""
    units = torch.eye(at.numel(), dtype=at.dtype).view(-1, *at.shape)
    columns = looped(function, units)
    return tuple(x.movedim(0, -1).reshape(*x.shape[1:], *at.shape) for x in columns)


def test_vmap(transform: BandTransform) -> None:
    there, frames = analysis(transform), batch(3, 2, 1, 9, 12)
    assert_close(vmap(there)(frames), looped(there, frames))
    moved = vmap(there, in_dims=2, out_dims=-1, chunk_size=2)(frames.movedim(0, 2))
    assert_close(moved, tuple(x.movedim(0, -1) for x in looped(there, frames)))
    twice = batch(2, 3, 2, 1, 8, 8)
    assert_close(vmap(vmap(there))(twice), looped(lambda x: looped(there, x), twice))


def test_vmap_of_the_inverse(transform: BandTransform) -> None:
    back, parts = synthesis(transform, (9, 12))
    batches = [torch.stack((x, 2 * x, x.flip(0))) for x in parts]
    assert_close(vmap(back)(*batches), looped(back, *batches))
    some = vmap(back, in_dims=(0, *(None for _ in parts[1:])))(batches[0], *parts[1:])
    assert_close(some, looped(lambda low: back(low, *parts[1:]), batches[0]))


def test_no_images_in_a_batch() -> None:
    there = analysis(parse_transform("dwt:db2", 1))
    assert [x.shape for x in vmap(there)(torch.zeros(0, 2, 1, 8, 8))] == [(0, 2, 1, 4, 4)] * 4


def test_forward_mode(transform: BandTransform) -> None:
    """The tangent of a linear function is the function of the tangent."""
    there, (pixels, tangent) = analysis(transform), batch(2, 2, 1, 9, 12)
    assert_close(jvp(there, (pixels,), (tangent,))[1], there(tangent))
    with forward_ad.dual_level():
        out = there(forward_ad.make_dual(pixels, tangent))
        assert_close(tuple(forward_ad.unpack_dual(x).tangent for x in out), there(tangent))
    back, parts = synthesis(transform, (9, 12))
    tangents = tuple(x.flip(-1) for x in parts)
    assert_close(jvp(back, tuple(parts), tangents)[1], back(*tangents))
    of_low = jvp(lambda low: back(low, *parts[1:]), (parts[0],), (tangents[0],))[1]
    assert_close(of_low, back(tangents[0], *(torch.zeros_like(x) for x in parts[1:])))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_linearised_it_is_itself() -> None:
    there, (pixels, tangent) = analysis(parse_transform("dwt:db4", 2)), batch(2, 2, 1, 8, 12)
    assert_close(linearize(there, pixels)[1](tangent), there(tangent))


def test_jacobians_are_the_dense_matrix(transform: BandTransform) -> None:
    there, pixels = analysis(transform), batch(1, 1, 5, 8)
    expected = dense(there, pixels)
    assert_close(jacrev(there)(pixels), expected)
    assert_close(jacfwd(there)(pixels), expected)
    back, parts = synthesis(transform, (5, 8))
    for number, part in enumerate(parts):
        expected = dense(partial(_alone, back, parts, number), part)
        assert_close(jacrev(back, argnums=number)(*parts), expected)
        assert_close(jacfwd(back, argnums=number)(*parts), expected)


def _alone(function: Function, parts: list[Tensor], number: int, x: Tensor) -> tuple[Tensor, ...]:
    """Of ``x`` in its place, and zeros in all others."""
    return function(*(x if i == number else torch.zeros_like(part) for i, part in enumerate(parts)))


def test_second_derivatives_nested(transform: BandTransform) -> None:
    total, frames = bent(analysis(transform)), batch(2, 1, 1, 4, 6)
    expected = torch.stack([torch.autograd.functional.hessian(total, x) for x in frames])
    for second in (hessian(total), jacrev(jacrev(total)), jacfwd(jacfwd(total)), jacrev(jacfwd(total))):
        assert_close(second(frames[0]), expected[0])
    assert_close(vmap(hessian(total))(frames), expected)
    slopes = torch.stack([grad(total)(x) for x in frames])
    assert_close(vmap(grad(total))(frames), slopes)
    assert_close(grad(lambda x: vmap(total)(x).sum())(frames), slopes)
    directions = frames.flip(0)
    steps = jvp(vmap(total), (frames,), (directions,))[1]
    assert_close(steps, (slopes * directions).flatten(1).sum(1))
    assert_close(vmap(lambda x, d: jvp(total, (x,), (d,))[1])(frames, directions), steps)


def test_autograd_checks_every_kind_of_derivative(transform: BandTransform) -> None:
    """In batches, too, which are those of an older vmap than torch.func's."""
    if transform.depth == transform.levels:
        transform = parse_transform(transform.spec.replace("radial:2", "radial:1"), 1)
    side = 2**transform.depth
    back, parts = synthesis(transform, (side, side))
    cases = [(analysis(transform), [batch(1, 1, side, side)]), (back, [x[:1] for x in parts])]
    for function, inputs in cases:
        given = [x.clone().requires_grad_() for x in inputs]
        assert torch.autograd.gradcheck(
            function, given, check_forward_ad=True, check_batched_forward_grad=True, check_batched_grad=True
        )
        assert torch.autograd.gradgradcheck(function, given, check_fwd_over_rev=True, check_batched_grad=True)


def test_vectorised_derivatives_of_autograd(transform: BandTransform) -> None:
    there, pixels = analysis(transform), batch(1, 1, 4, 8)
    expected = dense(there, pixels)
    derive = torch.autograd.functional
    for strategy in ("forward-mode", "reverse-mode"):
        assert_close(derive.jacobian(there, pixels, vectorize=True, strategy=strategy), expected)
    total = bent(there)
    assert_close(derive.hessian(total, pixels, vectorize=True), hessian(total)(pixels))


def test_what_is_first_used_in_a_function_s_derivative_serves_training_later(transform: BandTransform) -> None:
    """Matrices and masks are remembered; and torch.compile may be the first to use a transform at all."""
    pixels = image(1, 1, 24, 40)
    fresh = named("packets" if transform.depth > transform.levels else transform.spec)
    grad(bent(analysis(fresh)))(pixels)
    trained = pixels.clone().requires_grad_()
    bands = fresh.analyse(trained)
    (gradient,) = torch.autograd.grad(torch.stack([(x**2).sum() for x in bands.values()]).sum(), trained)
    assert gradient.abs().max() > 0
    assert_same(bands, transform.analyse(pixels))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("spec", ["dwt:haar", "dct"])
def test_compiled_as_one_graph(spec: str) -> None:
    """Of a transform that was not used before; and in forward mode, where operators would lose the tangent."""
    transform, frames = parse_transform(spec, 1), batch(2, 2, 1, 8, 8)
    there, pixels = analysis(transform), frames[0].clone()

    def total(x: Tensor) -> Tensor:
        bands = transform.analyse(x)
        return transform.synthesise({band: value**2 for band, value in bands.items()}, (8, 8)).square().sum()

    works: list[tuple[Callable[[Tensor], object], Tensor]] = [
        (lambda x: jvp(there, (x,), (2 * x,))[1], pixels),
        (lambda x: vmap(grad(total))(x), frames),
    ]
    for work, given in works:
        torch.compiler.reset()
        compiled = torch.compile(work, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(given), work(given), rtol=0, atol=1e-10)


def test_wavedec2_and_its_inverse() -> None:
    frames = batch(3, 2, 7, 10)
    pixels, tangent = frames[0], frames[1]
    for wavelet in ("haar", "db2"):
        there: Function = lambda x, w=wavelet: tuple(flat(wavedec2(x, w, level=2)))  # noqa: E731
        back: Function = lambda *x, w=wavelet: (waverec2([x[0], x[1:4], x[4:]], w),)  # noqa: E731
        assert_close(vmap(there)(frames), there(frames))
        assert_close(jvp(there, (pixels,), (tangent,))[1], there(tangent))
        assert_close(vmap(back)(*there(frames)), back(*there(frames)))
        assert_close(jvp(back, there(pixels), there(tangent))[1], back(*there(tangent)))
        assert_close(vmap(hessian(bent(there)))(frames[:2, :1, :3, :4])[1], hessian(bent(there))(frames[1, :1, :3, :4]))
    moved: Function = lambda x: tuple(flat(wavedec2(x, "db2", level=1, axes=(0, 2))))  # noqa: E731
    assert_close(vmap(moved)(frames), looped(moved, frames))


def test_vmap_of_integers() -> None:
    scans = (batch(3, 2, 7, 10).abs() * 1000).to(torch.int32)
    there: Function = lambda x: tuple(flat(integer_wavedec2(x, 2)))  # noqa: E731
    assert_close(vmap(there)(scans), there(scans))
    back = vmap(lambda *x: integer_waverec2([x[0], x[1:4], x[4:]]))(*there(scans))
    assert torch.equal(back, scans)
    for dtype in (torch.int32, torch.int64):
        whole = vmap(parse_transform("dwt:haar", 1).analyse)(scans[:, :, None, :6].to(dtype))
        assert whole[Band(1, "LL")].dtype == torch.float64
