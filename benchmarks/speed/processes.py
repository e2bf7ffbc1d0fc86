"""A training of two processes, held against two that know nothing of each other, and against PyTorch's own way.

Each process has a thread, as many images in memory, and gloo. The first comparison is the efficiency of scaling: both
cores work in it too, so that what is missing was lost in averaging and in waiting. The second is a bare loop with
DistributedDataParallel, at the same precision.
"""

import sys
import time
from collections.abc import Callable

import torch
from measure import QUICK, Table
from torch import distributed
from torch.distributed import run as torchrun
from torch.nn.parallel import DistributedDataParallel
from training import bare_step, new_loop

from selftrain.learning.runtime import plain_gradient
from selftrain.networks.models import create_model
from selftrain.plumbing.hardware import HardwareConfig, resolve

CASES = [("test_resnet", 32, 4, 2)] if QUICK else [("test_resnet", 32, 128, 10), ("resnet18", 128, 16, 5)]
"""Network, size of the images, images a step of each process, steps."""


def main() -> None:
    if "--part" not in sys.argv:
        part = ["--standalone", "--nproc-per-node=2", __file__, "--part"]
        torchrun.run(torchrun.parse_args(part))  # type: ignore[no-untyped-call]
        return
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    table = Table("processes")
    for case in CASES:
        measure(table, *case)
    if distributed.get_rank() == 0:
        table.write()
    distributed.destroy_process_group()


def measure(table: Table, name: str, size: int, batch_size: int, steps: int) -> None:
    """Supervised training of one network."""
    machine = resolve(HardwareConfig(device="cpu", threads=1, processes=2, workers=0))
    noise = {"randaugment_ops": 0, "flip": 0}
    parameters = {"model": name, "image_size": size, "batch_size": 2 * batch_size, "noise": noise}
    together, alone = (new_loop("supervised", parameters, machine) for _ in range(2))
    alone.runtime.gradient = plain_gradient
    of_all = new_loop("supervised", parameters | {"sync_batchnorm": True}, machine)
    images = torch.randint(0, 256, (batch_size, size, size, 3), dtype=torch.uint8)
    labels = torch.randint(0, 2, (batch_size,))
    batch = {"labeled": {"image": images, "label": labels}}
    network = create_model(name, 2, size).to(memory_format=torch.channels_last)  # before its buckets are laid out
    theirs = bare_step(DistributedDataParallel(network), machine.autocast)
    floats = images.permute(0, 3, 1, 2).float()  # channels-last in memory

    works: dict[str, Callable[[], object]] = {
        "ours": lambda: together.one_step(batch),
        "two that know nothing of each other": lambda: alone.one_step(batch),
        "DistributedDataParallel": lambda: theirs(floats, labels),
    }
    seconds = in_turns(works, steps)
    table.compare(f"{name}, {size} pixels", 2 * steps * batch_size, "ours", seconds, "images/s")
    works = {"ours": lambda: of_all.one_step(batch), "each its own BatchNorm": lambda: together.one_step(batch)}
    seconds = in_turns(works, steps)
    table.compare(f"{name}, BatchNorm over both", 2 * steps * batch_size, "ours", seconds, "images/s")


def in_turns(works: dict[str, Callable[[], object]], steps: int) -> dict[str, float]:
    """Seconds of ``steps`` steps of each, medians of turns, until both processes have ended."""
    found: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        work()
    for _ in range(1 if QUICK else 3):
        for name, work in works.items():
            distributed.barrier()
            began = time.perf_counter()
            for _ in range(steps):
                work()
            distributed.barrier()
            found[name].append(time.perf_counter() - began)
    return {name: sorted(each)[len(each) // 2] for name, each in found.items()}


if __name__ == "__main__":
    main()
