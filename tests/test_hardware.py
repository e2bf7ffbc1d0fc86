"""Devices that params.yaml asks for, and this machine does not have."""

import pytest
import torch

from selftrain.plumbing.errors import UserError
from selftrain.plumbing.hardware import HardwareConfig, resolve


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="needs a machine without an Apple GPU")
def test_an_apple_gpu_that_is_not_there() -> None:
    with pytest.raises(UserError, match="hardware.device: there is no Apple GPU on this machine"):
        resolve(HardwareConfig(device="mps"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
@pytest.mark.parametrize("device", ["cuda", "cuda:5"])
def test_a_cuda_device_that_is_not_there(device: str) -> None:
    with pytest.raises(UserError, match="hardware.device: there is no CUDA device on this machine"):
        resolve(HardwareConfig(device=device))


@pytest.mark.parametrize(("device", "rank", "named"), [("cuda:5", 0, "cuda:5"), ("cuda", 2, "cuda:2")])
def test_more_gpus_than_there_are(device: str, rank: int, named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", str(rank))
    with pytest.raises(UserError, match=f"there is no {named}, as this machine has 2; .* fewer processes"):
        resolve(HardwareConfig(device=device))
