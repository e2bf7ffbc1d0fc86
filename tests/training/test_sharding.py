"""Weights that two gloo processes share out: optimizers, checkpoints in time, how a network lies in memory."""

import os
import subprocess
import sys
from typing import Any

import pytest
import torch

from tests.repository import ROOT

TWO = """
import sys, warnings
from pathlib import Path
import torch
from timm.optim import create_optimizer_v2, list_optimizers
from torch import distributed, nn
from selftrain.networks.models import create_model
from selftrain.plumbing.hardware import Hardware
from selftrain.training.batches import Process
from selftrain.training.checkpoint import load_checkpoint
from selftrain.training.sharding import OTHER_STEPS, shard, sharded_gradient, whole
from selftrain.training.validation import Score
from tests.algorithms.tiny import TinyModel, new_loop, random_batch

warnings.simplefilter("ignore")
torch.set_num_threads(1)
distributed.init_process_group("gloo")
rank = distributed.get_rank()

def stepped(name, shared_out):
    torch.manual_seed(0)
    network = TinyModel(plain=True, normed=True)
    if shared_out:
        shard(network)
    optimizer = create_optimizer_v2(network, opt=name, lr=1e-2, weight_decay=1e-2)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for step in range(3):
        torch.manual_seed(step)
        loss = nn.functional.cross_entropy(network(torch.randn(6, 3, 16, 16)), torch.arange(6) % 3)
        slopes = sharded_gradient(loss, parameters) if shared_out else torch.autograd.grad(loss, parameters)
        for parameter, slope in zip(parameters, slopes, strict=True):
            parameter.grad = slope
        optimizer.step()
        optimizer.zero_grad()
    return whole(network.state_dict())

def after_a_change(network):
    # What it says once its weights are doubled, having been asked before.
    with torch.no_grad():
        network(torch.ones(2, 3, 16, 16))
        for parameter in network.parameters():
            parameter.mul_(2)
        return network(torch.ones(2, 3, 16, 16))

class Batches(torch.utils.data.Dataset):
    def __init__(self, algorithm):
        self.algorithm = algorithm
    def __getitem__(self, step):
        return random_batch(self.algorithm, step)

class Validation:
    def score(self, model):
        return Score(0.5, -1.0)

class Curves:
    def log(self, step, metrics):
        pass
    def flush(self):
        pass

def trained(shared_out, clock):
    # A process whose clock is behind thinks that no checkpoint is due.
    loop = new_loop("noisy_student", plain=True, process=Process(rank, 2), sharded=shared_out)
    folder = Path(f"checkpoints-{shared_out}-{clock}")
    seconds = (0.0, 1e9) if clock == "first" else (1e9, 0.0)
    loop.run(Batches(loop.algorithm), Validation(), Curves(), folder, seconds[rank], "training")
    distributed.barrier()
    return loop.step, load_checkpoint(folder)["step"], whole(loop.algorithm.state_dict())

names = [name for name in list_optimizers() if not OTHER_STEPS.search(name)]
optimizers = {name: (stepped(name, False), stepped(name, True)) for name in names}
runs = {(shared_out, clock): trained(shared_out, clock) for shared_out in (False, True) for clock in ("first", "second")}

def after_a_look(shared_out):
    # Its gradient in bf16, having been asked without gradients before.
    torch.manual_seed(0)
    network = create_model("test_vit", 3, 32)
    if shared_out:
        shard(network)
    parameters = list(network.parameters())
    images = torch.randn(6, 3, 32, 32)
    with Hardware(torch.device("cpu"), True, 0, 1, fsdp=shared_out).autocast():
        with torch.no_grad():
            network(images)
        loss = nn.functional.cross_entropy(network(images), torch.arange(6) % 3)
    slopes = sharded_gradient(loss, parameters) if shared_out else torch.autograd.grad(loss, parameters)
    return [torch.zeros(()) if slope is None else whole(slope) for slope in slopes]

looked = [after_a_look(shared_out) for shared_out in (False, True)]

changed = []
for shared_out in (False, True):
    torch.manual_seed(0)
    network = TinyModel(plain=True)
    if shared_out:
        shard(network)
    changed.append(after_a_change(network))

last = new_loop("noisy_student", plain=True, process=Process(rank, 2))
last.algorithm.student.to(memory_format=torch.channels_last)
channels_last = last.algorithm.student
from selftrain.training.loop import Loop
made = Loop(last.algorithm, last.config, 1.0, 0, Hardware(torch.device("cpu"), False, 0, 1, fsdp=True), Process(rank, 2))
made.one_step(random_batch(made.algorithm, 0))
if rank == 0:
    torch.save({"optimizers": optimizers, "runs": runs, "changed": changed, "looked": looked}, sys.argv[1])
distributed.destroy_process_group()
"""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("two")
    (folder / "two.py").write_text(TWO)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    subprocess.run([*command, "two.py", "found.pt"], cwd=folder, check=True, env=environment, timeout=600)
    found: dict[str, Any] = torch.load(folder / "found.pt", weights_only=True)
    return found


@pytest.mark.slow
def test_every_optimizer_that_is_allowed_takes_the_steps_of_whole_weights(two: dict[str, Any]) -> None:
    assert {"adamw", "sgd", "nesterov", "rmsproptf", "lars", "lion", "adafactor", "madgrad"} <= two["optimizers"].keys()
    for name, (plain, shared_out) in two["optimizers"].items():
        for key, value in plain.items():
            torch.testing.assert_close(shared_out[key], value, rtol=1e-5, atol=1e-6, msg=f"{name}: {key}")


@pytest.mark.slow
def test_weights_that_changed_are_those_of_the_next_pass(two: dict[str, Any]) -> None:
    """Also where no backward pass was in between, as in averages and in feedback."""
    torch.testing.assert_close(*two["changed"])


@pytest.mark.slow
def test_a_look_without_gradients_changes_none_that_are_taken_next(two: dict[str, Any]) -> None:
    for plain, shared_out in zip(*two["looked"], strict=True):
        torch.testing.assert_close(shared_out, plain, rtol=0.05, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("clock", ["first", "second"])
def test_checkpoints_are_written_when_the_first_processs_clock_says_so(two: dict[str, Any], clock: str) -> None:
    """Each process looks at its own clock, and to make the state is a common work."""
    (step, kept, weights), (other_step, other_kept, other) = (two["runs"][shared_out, clock] for shared_out in (0, 1))
    assert step == kept == other_step == other_kept == 40
    for key, value in weights.items():
        torch.testing.assert_close(other[key], value, rtol=1e-3, atol=2e-5)
