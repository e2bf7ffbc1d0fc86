"""The section of params.yaml about the machine, and what ``auto`` means on this one."""

import os
import shutil
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from selftrain.plumbing.errors import UserError
from selftrain.plumbing.locks import WORK
from selftrain.plumbing.sections import Section

if TYPE_CHECKING:
    import torch


HARDWARE_HERE = "SELFTRAIN_HARDWARE"
PIXELS = WORK / "pixels"
"""Where decoded images are kept."""
SHARD_BYTES = 2**30
"""Of stores' shards that are kept here where no parameter says it."""


class HardwareConfig(Section):
    """``hardware``: the machine. Not a dependency of any stage: it changes speed and rounding, not meaning."""

    engine: Literal["local", "torchrun", "ray"] = "local"
    """What runs units of work: this machine, torchrun's processes on one or several, or a Ray cluster
    (``RAY_ADDRESS``, or one that is started here)."""
    nodes: Annotated[int, Field(ge=1)] | Annotated[str, Field(pattern=r"^[1-9]\d*:[1-9]\d*$")] = 1
    """With ``engine: torchrun``: machines that `train` and `predict` run on, or the fewest and the most (``"2:4"``).
    One runs `dvc repro`, the others `selftrain follow`."""
    rendezvous: Annotated[str, Field(pattern=r"^.+:\d+$")] | None = None
    """Host and port of the machine that runs `dvc repro`, where the others meet it."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")] = "auto"
    """``auto``, ``cpu``, ``mps``, ``cuda`` or ``cuda:N``."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """``auto``: bf16 autocast on CUDA and on CPUs that calculate in it (AVX512-BF16, AMX), fp32 on others. ``predict``
    goes back to fp32 where bf16 changes labels of validation images."""
    compile: bool = False
    """Compile the networks (``torch.compile``): minutes before the first step, and then a faster one. Not for Meta
    Pseudo Labels with ``feedback: exact``, whose derivatives of derivatives PyTorch does not compile."""
    fsdp: bool = False
    """Each training process keeps its share of the weights, gradients and optimizer states alone (FSDP2), for networks
    that are too large for one GPU: more messages, less memory. Not with ``compile``, nor for Meta Pseudo Labels with
    ``feedback: exact``."""
    processes: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Training processes; ``auto``: one a GPU, one without."""
    workers: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    """Loader processes for each training process."""
    threads: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """CPU threads for each training process; ``auto``: the cores that the loader leaves."""
    pixel_cache_gib: Annotated[float, Field(ge=0)] | Literal["auto"] = "auto"
    """How much of decoded images is kept on the disk, under ``.selftrain/pixels``; ``auto``: a quarter of what would be
    free there without them. 0: every image is decoded each time."""
    shard_cache_gib: Annotated[float, Field(ge=0)] | Literal["auto"] = "auto"
    """How much of shards that stay in a store (``ingest.unlabeled.in_place``) is kept on the disk, under
    ``.selftrain/shards``; ``auto``: an eighth of what is free."""
    checkpoint_seconds: float = Field(default=60, gt=0)
    predict_batch_size: int = Field(default=256, ge=1)
    """Images that `predict` and validation look at together: lower it where memory is short."""

    @model_validator(mode="after")
    def _several_machines_meet(self) -> "HardwareConfig":
        if (self.nodes != 1) != (self.rendezvous is not None):
            raise ValueError("`nodes` and `rendezvous` belong together")
        if self.nodes != 1 and self.engine != "torchrun":
            raise ValueError("`nodes` are torchrun's; set `engine: torchrun`, or leave them out")
        if self.fsdp and self.compile:
            raise ValueError("`fsdp` does not go with `compile`; set one of them to false")
        return self


def hardware_here() -> dict[str, Any]:
    """What ``SELFTRAIN_HARDWARE`` says of this machine, ``name=value`` after ``name=value``; values are YAML.

    A cluster's scripts say so what differs from machine to machine, and params.yaml stays as it is. Raises UserError
    for anything else.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    found: dict[str, Any] = {}
    for word in os.environ.get(HARDWARE_HERE, "").split():
        name, equals, value = word.partition("=")
        if not equals or not value:
            raise UserError(f"{HARDWARE_HERE}: '{word}' is not `name=value`")
        if name in found:
            raise UserError(f"{HARDWARE_HERE}: '{name}' is there twice")
        try:
            # Host and port would be a number of base 60.
            found[name] = value if ":" in value else YAML(typ="safe").load(value)
        except (YAMLError, ValueError):
            raise UserError(f"{HARDWARE_HERE}: '{word}' has no value that YAML knows") from None
    return found


@dataclass(frozen=True)
class Caches:
    """How many bytes may be kept on the disk."""

    pixels: int = 0
    """Of decoded images."""
    shards: int = SHARD_BYTES
    """Of shards that lie in a store."""


@dataclass(frozen=True)
class Hardware:
    """Resolved hardware parameters of one process."""

    device: "torch.device"
    bf16: bool
    workers: int
    threads: int
    compile: bool = False
    caches: Caches = Caches()
    fsdp: bool = False
    predict_batch_size: int = 256

    def autocast(self) -> AbstractContextManager[object]:
        """The precision that forward passes run in."""
        import torch

        # A weight that was cast in a pass without gradients would be kept for the next pass, and FSDP2 would see its
        # gradient a step late.
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16, cache_enabled=not self.fsdp)


def missing_device(name: str) -> str | None:
    """What to tell of a device that is not on this machine, where the parameters may be written for another."""
    import torch

    kind, _, number = name.partition(":")
    if kind == "cuda" and not torch.cuda.is_available():
        return "hardware.device: there is no CUDA device on this machine; use auto or cpu"
    if kind == "cuda" and number.isdigit() and int(number) >= (count := torch.cuda.device_count()):
        return (
            f"hardware.device: there is no {name}, as this machine has {count}; take a lower number or fewer processes"
        )
    if kind == "mps" and not torch.backends.mps.is_available():
        return "hardware.device: there is no Apple GPU on this machine; use auto or cpu"
    return None


def resolve(config: HardwareConfig) -> Hardware:
    """Resolve ``auto`` for this process, one of torchrun's or the only one, and set PyTorch's thread count.

    Raises UserError for a device that is not there.
    """
    import torch

    local_rank, local_processes = int(os.environ.get("LOCAL_RANK", 0)), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    name = config.device
    if name == "auto":
        name = f"cuda:{local_rank}" if torch.cuda.is_available() else "cpu"
    elif name == "cuda":
        name = f"cuda:{local_rank}"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"hardware.device: '{name}' is not a device; use auto, cpu, cuda or cuda:0") from None
    if missing := missing_device(name):
        raise UserError(missing)
    cores = max(1, usable_cores() // local_processes)
    workers = config.workers if config.workers != "auto" else (min(8, cores) if device.type == "cuda" else cores // 2)
    threads = config.threads if config.threads != "auto" else max(1, cores - int(workers))
    torch.set_num_threads(int(threads))
    # The fastest convolutions of cuDNN differ from run to run.
    torch.backends.cudnn.deterministic = True
    bf16 = config.precision == "bf16" or (config.precision == "auto" and _calculates_in_bf16(device))
    return Hardware(
        device,
        bf16,
        int(workers),
        int(threads),
        config.compile,
        Caches(_pixel_bytes(config), _shard_bytes(config)),
        config.fsdp,
        config.predict_batch_size,
    )


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _shard_bytes(config: HardwareConfig) -> int:
    if config.shard_cache_gib == "auto":
        return shutil.disk_usage(".").free // 8
    return int(config.shard_cache_gib * 2**30)


def _pixel_bytes(config: HardwareConfig) -> int:
    if config.pixel_cache_gib == "auto":
        try:
            kept = sum(file.stat().st_blocks * 512 for file in PIXELS.rglob("*.u8"))
        except OSError:  # another process removes some just now
            kept = 0
        return (shutil.disk_usage(".").free + kept) // 4
    return int(config.pixel_cache_gib * 2**30)


def _calculates_in_bf16(device: "torch.device") -> bool:
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # PyTorch has no public question for it; a version without these has float32.
    asked = (getattr(torch.cpu, f"_is_{feature}_supported", None) for feature in ("avx512_bf16", "amx_tile"))
    return device.type == "cpu" and any(ask is not None and ask() for ask in asked)


def peak_memory(device: "torch.device") -> int:
    """The most memory that this process held so far, in bytes: on its GPU, or resident without one."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def processes(config: HardwareConfig) -> int:
    """Training processes to start on this machine."""
    import torch

    if config.processes != "auto":
        return config.processes
    return max(1, torch.cuda.device_count()) if config.device in ("auto", "cuda") else 1
