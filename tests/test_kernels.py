"""The GPU kernels where there is no GPU: in Triton's interpreter; where there is one: what a profiler counts."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest
import torch

from freqgan.transforms import parse_transform
from tests.commands import ROOT


@pytest.mark.skipif(
    platform.system() != "Linux" or platform.machine() != "x86_64", reason="Triton is for Linux on x86_64"
)
def test_the_kernels_do_in_triton_s_interpreter_what_plain_torch_does() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.triton_interpreted"],
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
        "sys.exit('freqgan.transforms.kernels' in sys.modules)"
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
