"""Compiled kernels against plain torch: those of CPUs; those of GPUs interpreted, and counted on a GPU."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType
from unittest.mock import Mock

import pytest
import torch

from freqgan.transforms import banks, filters, parse_transform
from freqgan.transforms.kernels import choice, cosine, cpu, fourier
from tests.support.commands import ROOT
from tests.support.transforms import image
from tests.support.triton_interpreted import held, outcomes


@pytest.fixture
def any_size(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Kernels for tensors of every size, in pieces of a few planes; the names of those that were asked for."""
    asked: list[str] = []

    class Watched(ModuleType):
        def __getattr__(self, name: str) -> object:
            asked.append(name)
            return getattr(cpu, name)

    monkeypatch.setattr(choice, "LARGE", 1)
    monkeypatch.setattr(choice, "_kernels", lambda name, device: Watched(name))
    monkeypatch.setattr(cpu, "CHUNK_BYTES", 2**13)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield asked
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("wavelet", "dtype"),
    [("haar", torch.float32), ("haar", torch.float64), ("db2", torch.float32), ("bior4.4", torch.float64)],
)
def test_kernels_of_a_cpu_do_what_plain_torch_does(
    any_size: list[str], monkeypatch: pytest.MonkeyPatch, wavelet: str, dtype: torch.dtype
) -> None:
    cases = []
    for size, levels in (((8, 64), 3), ((24, 40), 2), ((2, 4), 1), ((2, 2), 1)):
        transform, pixels = parse_transform(f"dwt:{wavelet}", levels), image(5, 3, *size, dtype=dtype)
        cases.append((transform, pixels, outcomes(transform, pixels)))
    asked = list(any_size)
    assert len(set(asked)) == 2, asked  # both directions
    for module in (banks, filters):
        monkeypatch.setattr(module, "kernels_for", lambda *_, **__: None)
    bound = 2e-6 if dtype == torch.float32 else 1e-12
    for transform, pixels, made in cases:
        for a, b in zip(made, outcomes(transform, pixels), strict=True):
            assert (
                torch.equal(a, b) if wavelet == "haar" else float((a - b).abs().max()) <= bound * float(b.abs().max())
            )
    assert any_size == asked


def test_kernels_of_a_cpu_take_any_layout_and_leave_inputs_alone(any_size: list[str]) -> None:
    for wavelet in ("haar", "db2"):
        transform, pixels = parse_transform(f"dwt:{wavelet}", 2), image(2, 3, 16, 16)
        expected = transform.analyse(pixels)
        for other in (
            pixels.to(memory_format=torch.channels_last),
            pixels.mT.contiguous().mT,
            pixels.expand(2, 3, 16, 16),
        ):
            kept = other.clone()
            found = transform.analyse(other)
            assert all(torch.equal(found[band], x) for band, x in expected.items())
            assert torch.equal(other, kept)
        parts = held(transform, expected)
        kept_parts = {band: x.clone() for band, x in parts.items()}
        transform.synthesise(parts, (16, 16))
        assert all(torch.equal(parts[band], x) for band, x in kept_parts.items())
    assert any_size


def test_small_tensors_and_long_filters_do_not_get_kernels_of_a_cpu() -> None:
    large = torch.zeros(1, 2, 512, 512)
    assert choice.kernels_for(large) is cpu
    assert choice.kernels_for(large[:, :, :256, :256], 4) is choice.kernels_for(large[:, :, ::2, ::2], 4) is cpu
    assert choice.kernels_for(large[:, :1]) is None
    assert choice.kernels_for(large, taps=40) is None
    assert choice.kernels_for(large.half()) is None
    assert choice.kernels_for(large.to("meta")) is None


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("spec", "module", "name"),
    [
        ("dwt:haar", cpu, "haar_split"),
        ("dwt:db2", cpu, "bank_split"),
        ("dct", cosine, "cosine_split"),
        ("fft:meyer", fourier, "fourier_split"),
    ],
)
def test_compiled_transforms_go_through_the_kernels(
    spec: str, module: ModuleType, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    transform, large = parse_transform(spec, 1), image(1, 2, 512, 512)
    expected = transform.analyse(large)
    split = Mock(wraps=getattr(module, name))
    monkeypatch.setattr(module, name, split)
    torch.compiler.reset()
    compiled = torch.compile(transform.analyse, backend="aot_eager", fullgraph=True)(large)
    split.assert_called_once()
    assert all(torch.equal(compiled[band], x) for band, x in expected.items())


@pytest.mark.parametrize("spec", ["dwt:haar", "dwt:db2", "dct", "fft:meyer"])
def test_vmap_and_forward_mode_go_through_the_kernels(spec: str) -> None:
    transform, frames = parse_transform(spec, 1), image(2, 2, 1, 512, 520)
    made = torch.func.vmap(transform.analyse)(frames)
    tangents = torch.func.jvp(transform.analyse, (frames[0],), (frames[1],))[1]
    for band, x in made.items():
        for number in range(2):
            torch.testing.assert_close(x[number], transform.analyse(frames[number])[band], rtol=0, atol=2e-6)
        assert torch.equal(tangents[band], transform.analyse(frames[1])[band])


WITHOUT_NUMBA = """
import sys, torch
sys.modules["numba"] = None
from freqgan.transforms import parse_transform
x = torch.rand(4, 3, 256, 256)
for spec in ("dwt:haar", "dct", "fft:meyer"):
    t = parse_transform(spec, 3)
    bands = {b: s for b, s in t.analyse(x).items() if b.orientation != "LL" or b.level == 3}
    assert float((x - t.synthesise(bands, (256, 256))).abs().max()) < 1e-5, spec
"""


def test_without_numba_large_tensors_are_transformed_in_plain_torch() -> None:
    command = [sys.executable, "-c", WITHOUT_NUMBA]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("spec", ["dct", "fft:shannon", "fft:meyer"])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 3e-6), (torch.float64, 1e-13)])
def test_spectral_kernels_do_what_scipy_and_plain_torch_do(
    spec: str, dtype: torch.dtype, bound: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of odd halves, of sides that are one sample, and of planes that lie otherwise in memory."""
    monkeypatch.setattr("freqgan.transforms.spectral.DENSE_SIDE", 1)
    monkeypatch.setattr(banks, "SPECTRAL_CHUNK_BYTES", 2**13)  # some planes at a time, and fewer at the end
    for size, levels in (((8, 64), 3), ((20, 12), 2), ((2, 6), 1), ((66, 2), 1), ((2, 2), 1)):
        transform, pixels = parse_transform(spec, levels), image(5, 3, *size, dtype=dtype)
        for x in (pixels, pixels.to(memory_format=torch.channels_last), pixels.mT.contiguous().mT):
            kept = x.clone()
            monkeypatch.setattr(choice, "LARGE", 1)
            made = outcomes(transform, x)
            monkeypatch.setattr(choice, "LARGE", 2**30)
            for a, b in zip(made, outcomes(transform, x), strict=True):
                assert float((a - b).abs().max()) <= bound * max(1, float(b.abs().max()))
            assert torch.equal(x, kept)


def test_only_large_tensors_of_a_cpu_get_spectral_kernels() -> None:
    large = torch.zeros(1, 2, 512, 512)
    assert choice.spectral_kernels_for(large, "cosine") is cosine
    assert choice.spectral_kernels_for(large, "fourier") is fourier
    for other in (large[:, :1], large.half(), large.to("meta")):
        assert choice.spectral_kernels_for(other, "cosine") is None


@pytest.mark.skipif(
    platform.system() != "Linux" or platform.machine() != "x86_64", reason="Triton is for Linux on x86_64"
)
def test_the_kernels_do_in_triton_s_interpreter_what_plain_torch_does() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.triton_interpreted"],
        cwd=ROOT,
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "largest difference" in done.stdout


def test_without_a_gpu_nothing_of_triton_is_imported() -> None:
    script = (
        "import sys, torch; from freqgan.transforms import parse_transform; "
        "parse_transform('dwt:db2', 2).analyse(torch.zeros(1, 1, 8, 8)); "
        "sys.exit('freqgan.transforms.kernels.gpu' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, timeout=120, check=False).returncode == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("wavelet", "levels", "launches"), [("haar", 3, 1), ("haar", 6, 2), ("db4", 3, 3)])
def test_launches_on_a_gpu(wavelet: str, levels: int, launches: int) -> None:
    transform, images = parse_transform(f"dwt:{wavelet}", levels), torch.rand(4, 3, 128, 128, device="cuda")
    bands = transform.analyse(images)
    held = {band: x for band, x in bands.items() if band.orientation != "LL" or band.level == levels}
    transform.synthesise(held, (128, 128))
    for work in (lambda: transform.analyse(images), lambda: transform.synthesise(held, (128, 128))):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            work()
            torch.cuda.synchronize()
        kernels = [event for event in profile.events() if "CUDA" in str(event.device_type)]
        assert len(kernels) == launches, [event.name for event in kernels]
