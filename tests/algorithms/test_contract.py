"""What every algorithm has to do, whatever it is."""

import copy
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from selftrain.networks.freezing import train_mode
from selftrain.training.checkpoint import load_checkpoint
from tests.algorithms.given import GivenTeacher
from tests.algorithms.tiny import NAMES, new_loop, random_batch, weights
from tests.repository import ROOT


@pytest.mark.parametrize("name", NAMES)
def test_steps_lower_the_loss_of_a_fixed_batch(name: str) -> None:
    loop = new_loop(name)
    batch = random_batch(loop.algorithm, 0)
    loop.algorithm.train()
    losses = [float(loop.one_step(batch)["loss"]) for _ in range(12)]
    assert losses[2] < losses[0]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_logged_is_finite_detached_scalars(name: str) -> None:
    loop = new_loop(name)
    for value in loop.one_step(random_batch(loop.algorithm, 0)).values():
        assert value.shape == ()
        assert not value.requires_grad
        assert torch.isfinite(value)


@pytest.mark.parametrize("name", NAMES)
def test_only_trained_networks_change(name: str) -> None:
    loop = new_loop(name)
    before = copy.deepcopy(loop.algorithm.state_dict())
    trained = {id(p) for network in loop.algorithm.trained_networks().values() for p in network.parameters()}
    loop.algorithm.train()
    for step in range(3):  # a layer that starts at zero passes nothing on in the first
        loop.one_step(random_batch(loop.algorithm, step))
    for key, parameter in loop.algorithm.named_parameters():
        assert torch.equal(parameter, before[key]) != (id(parameter) in trained)


@pytest.mark.parametrize("name", NAMES)
def test_the_rounds_teacher_stays_as_it_is(name: str) -> None:
    loop = new_loop(name, **({"teacher": "live"} if name == "distillation" else {}))
    teacher = getattr(loop.algorithm, "teacher", None)
    if not isinstance(teacher, GivenTeacher):
        pytest.skip("it does not run the round's teacher")
    before = copy.deepcopy(teacher.network.state_dict())
    for step in range(3):
        loop.algorithm.train()
        train_mode(loop.algorithm)
        assert not any(part.training for part in teacher.network.modules())
        loop.one_step(random_batch(loop.algorithm, step))
    assert all(torch.equal(value, before[key]) for key, value in teacher.network.state_dict().items())
    assert not any(key.startswith("teacher") for key in loop.state()["algorithm"]), "it is loaded from its own folder"


KILLED = """
import sys, time
from pathlib import Path
import torch
from selftrain.training.checkpoint import save_checkpoint
from tests.algorithms.tiny import NAMES, new_loop, random_batch

torch.set_num_threads(1)
for name in NAMES:
    loop = new_loop(name)
    loop.algorithm.train()
    for step in range(5):
        if step == 3:
            save_checkpoint(Path(name), 3, loop.state())
        loop.one_step(random_batch(loop.algorithm, step))
Path("ready").touch()
time.sleep(600)
"""


@pytest.fixture(scope="module")
def checkpoints_of_a_killed_process(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of checkpoints at step 3, by algorithm, of a process that went on to step 5 and was killed."""
    folder = tmp_path_factory.mktemp("killed")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    process = subprocess.Popen([sys.executable, "-c", KILLED], cwd=folder, env=environment)
    while not (folder / "ready").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_killed_and_resumed_equals_uninterrupted(name: str, checkpoints_of_a_killed_process: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        straight, resumed = new_loop(name), new_loop(name)
        state = load_checkpoint(checkpoints_of_a_killed_process / name)
        assert state is not None
        assert state["step"] == 3
        resumed.load_state(state)
        for loop in (straight, resumed):
            loop.algorithm.train()
            for step in range(loop.step, 6):
                loop.one_step(random_batch(loop.algorithm, step))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, other) for one, other in zip(weights(straight), weights(resumed), strict=True))
