"""Two processes that share a batch end like one that has it alone."""

import os
import subprocess
import sys
from typing import Any

import pytest
import torch

from tests.algorithms.tiny import ARMS, new_loop, random_batch, weights
from tests.repository import ROOT

PART = """
import copy, sys, torch
from torch import distributed
from selftrain.training.batches import Process
from selftrain.training.checkpoint import load_checkpoint
from tests.algorithms.tiny import ARMS, new_loop, random_batch, weights

torch.set_num_threads(1)
distributed.init_process_group("gloo")
rank = distributed.get_rank()
found = {}
synchronized = {}
sharded = {}
in_bf16 = {}
resumed = {}

def take(loop, steps):
    loop.algorithm.train()
    for step in steps:
        whole = random_batch(loop.algorithm, step)
        mine = {s: {v: t[rank * len(t) // 2 : (rank + 1) * len(t) // 2] for v, t in views.items()} for s, views in whole.items()}
        loop.one_step(mine)

def of_shares(name, parameters):
    def made(**changes):
        return new_loop(name, plain=True, process=Process(rank, 2), synchronized=True, **changes, **parameters)

    loop = made(sharded=True, checkpointed=True)
    take(loop, range(3))
    state = copy.deepcopy(loop.state())
    student = loop.algorithm.student
    later, whole = made(sharded=True), made()
    for other in (later, whole):
        other.load_state(copy.deepcopy(state))
        take(other, range(3, 5))
    take(loop, range(3, 5))
    return {
        "weights": [*state["algorithm"].values(), *loop_weights(state, loop)],
        "share": sum(v.to_local().numel() for v in student.parameters()) / sum(v.numel() for v in student.parameters()),
        "resumed": same(loop.state(), later.state(), 0.0),
        "resumed whole": same(loop.state(), whole.state(), 1e-4),
    }

def loop_weights(state, loop):
    return state["ema"].values() if state["ema"] is not None else loop.evaluated_model().state_dict().values()

def same(one, other, tolerance):
    pairs = zip(one["algorithm"].values(), other["algorithm"].values(), strict=True)
    return all(bool(torch.allclose(a, b, rtol=tolerance, atol=tolerance)) for a, b in pairs)

for arm, (name, parameters) in ARMS.items():
    loop = new_loop(name, plain=True, process=Process(rank, 2), **parameters)
    take(loop, range(3))
    found[arm] = weights(loop)
    # What is computed again waits for the other process as well.
    loop = new_loop(
        name, plain=True, process=Process(rank, 2), synchronized=True, checkpointed=True, **parameters
    )
    take(loop, range(3))
    synchronized[arm] = weights(loop)
    sharded[arm] = of_shares(name, parameters)
    in_bf16[arm] = []
    for shared_out in (False, True):
        loop = new_loop(name, plain=True, process=Process(rank, 2), bf16=True, sharded=shared_out, **parameters)
        take(loop, range(3))
        in_bf16[arm].append(list(loop.state()["algorithm"].values()))
    whole, before, after = (new_loop(name, process=Process(rank, 2), **parameters) for _ in range(3))
    take(whole, range(4))
    take(before, range(2))
    state = [before.state()]
    distributed.broadcast_object_list(state)
    after.load_state(state[0])
    take(after, range(2, 4))
    pairs = zip(whole.algorithm.parameters(), after.algorithm.parameters())
    resumed[arm] = all(bool(torch.equal(*pair)) for pair in pairs)
if rank == 0:
    found = {"weights": found, "synchronized": synchronized, "resumed": resumed, "sharded": sharded, "bf16": in_bf16}
    torch.save(found, sys.argv[1])
distributed.destroy_process_group()
"""


@pytest.fixture(scope="module")
def of_two_processes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Of two gloo processes, half of each batch for each: every algorithm's ``weights`` after three steps, and whether
    both ``resumed`` from the first one's state end like those that went on.
    """
    folder = tmp_path_factory.mktemp("gloo")
    (folder / "part.py").write_text(PART)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    subprocess.run([*command, "part.py", "weights.pt"], cwd=folder, check=True, env=environment, timeout=900)
    return torch.load(folder / "weights.pt", weights_only=True)


def after_three_steps(arm: str, synchronized: bool = False) -> list[torch.Tensor]:
    """The weights that one process with the whole batches ends with."""
    name, parameters = ARMS[arm]
    loop = new_loop(name, plain=True, synchronized=synchronized, **parameters)
    loop.algorithm.train()
    for step in range(3):
        loop.one_step(random_batch(loop.algorithm, step))
    return weights(loop)


@pytest.mark.slow
@pytest.mark.parametrize("arm", ARMS)
def test_two_processes_end_like_one(arm: str, of_two_processes: dict[str, dict[str, Any]]) -> None:
    for one, two in zip(after_three_steps(arm), of_two_processes["weights"][arm], strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=2e-5)
    assert of_two_processes["resumed"][arm], "the state is the first process's: nothing may depend on the others' own"


@pytest.mark.slow
@pytest.mark.parametrize("arm", ARMS)
def test_with_batchnorm_over_both_two_processes_end_like_one(
    arm: str, of_two_processes: dict[str, dict[str, Any]]
) -> None:
    for one, two in zip(after_three_steps(arm, synchronized=True), of_two_processes["synchronized"][arm], strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("arm", ARMS)
def test_two_processes_that_share_out_the_weights_end_like_one(
    arm: str, of_two_processes: dict[str, dict[str, Any]]
) -> None:
    found = of_two_processes["sharded"][arm]
    for one, two in zip(after_three_steps(arm, synchronized=True), found["weights"], strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=2e-5)
    assert found["share"] < 0.6
    assert found["resumed"], "from a checkpoint of whole tensors"
    assert found["resumed whole"], "by processes that have the whole weights each"


@pytest.mark.slow
@pytest.mark.parametrize("arm", ARMS)
def test_in_bf16_too_shares_end_like_whole_weights(arm: str, of_two_processes: dict[str, dict[str, Any]]) -> None:
    """Of weights that are cast for a pass, copies may be kept for the next one."""
    for whole, shares in zip(*of_two_processes["bf16"][arm], strict=True):
        torch.testing.assert_close(whole, shares, rtol=1e-3, atol=1e-4)
