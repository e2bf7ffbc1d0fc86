"""What every algorithm has to do, whatever it is."""

import copy
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from selftrain.learning.algorithm import Algorithm, Batch, find_algorithm
from selftrain.networks.freezing import train_mode
from selftrain.params.train import TrainConfig
from selftrain.plumbing.by_name import known_modules
from selftrain.plumbing.hardware import Hardware
from selftrain.training.batches import Process
from selftrain.training.checkpoint import load_checkpoint
from selftrain.training.loop import Loop
from tests.algorithms.given import GivenNetworks, GivenTeacher
from tests.repository import ROOT
from tests.training.conftest import TINY

NAMES = [name for name in known_modules("algorithms") if not find_algorithm(name, {})[0].closed_form]
"""Those that take steps."""
IN_PARTS = [name for name in NAMES if find_algorithm(name, {})[0].descends_one_loss()]
"""Those whose step is down one loss."""
OTHERWISE: dict[str, dict[str, Any]] = {
    "dynamic_teacher": {"updates": "alternating", "teacher_every": 2, "challenge": 0.1},
    "meta_pseudo_labels": {"feedback": "finite_difference", "feedback_at": "new_student"},
    "reduced_meta_pseudo_labels": {"feedback_at": "own_step", "student_labeled_factor": 0.5},
}
"""Parameters with which some take other gradients than by default."""
ARMS = {name: (name, dict[str, Any]()) for name in NAMES} | {
    f"{name}, otherwise": (name, parameters) for name, parameters in OTHERWISE.items()
}
NUM_CLASSES = 3


class TinyModel(torch.nn.Module):
    """A network with a norm and dropout, so that forgotten state shows."""

    pretrained_cfg = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    num_classes = NUM_CLASSES

    def __init__(self, plain: bool = False, width: int = 8, normed: bool = False) -> None:
        super().__init__()
        self.channels = (width,)
        norm = torch.nn.Identity() if plain and not normed else torch.nn.BatchNorm2d(width)
        self.features = torch.nn.Sequential(torch.nn.Conv2d(3, width, 3, stride=2), norm, torch.nn.ReLU())
        self.head = torch.nn.Sequential(
            torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Dropout(0 if plain else 0.1),
            torch.nn.Linear(4 * width, NUM_CLASSES),
        )  # fmt: skip

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(images))

    def forward_intermediates(self, images: torch.Tensor, indices: int, intermediates_only: bool = False) -> Any:
        assert indices == 1
        maps = self.features(images)
        return [maps] if intermediates_only else (maps, [maps])

    def forward_head(self, maps: torch.Tensor) -> torch.Tensor:
        return self.head(maps)

    def group_matcher(self, coarse: bool) -> dict[str, str]:
        return {"stem": "^features", "head": "^head"}

    def get_classifier(self) -> torch.nn.Module:
        return self.head[-1]


PLAIN: dict[str, Any] = {
    "noise": {"dropout": 0.0}, "optimizer": "sgd", "optimizer_options": {"nesterov": False}, "clip_grad": 1.0,
}  # fmt: skip
"""Without random numbers in the network, and steps that are proportional to gradients."""


def config(name: str, plain: bool = False, **changes: Any) -> TrainConfig:
    return TrainConfig.model_validate(
        TINY
        | {
            "algorithm": {"name": name},
            "unlabeled_ratio": 2,
            "ema_decay": 0.9,
            "learning_rate": 0.02,
            "warmup": 0,
            "steps": 40,
        }
        | (PLAIN if plain else {})
        | changes
    )


def new_loop(
    name: str,
    plain: bool = False,
    process: Process | None = None,
    teacher_width: int = 12,
    parts: int = 1,
    synchronized: bool = False,
    checkpointed: bool = False,
    sharded: bool = False,
    bf16: bool = False,
    compiled: bool = False,
    **parameters: Any,
) -> Loop:
    torch.manual_seed(0)
    algorithm_class, own = find_algorithm(name, parameters)
    hardware = Hardware(torch.device("cpu"), bf16=bf16, workers=0, threads=1, compile=compiled, fsdp=sharded)
    networks = GivenNetworks(
        lambda _: TinyModel(plain, normed=synchronized), of_round=TinyModel(plain, teacher_width, synchronized)
    )
    return Loop(
        algorithm_class(TinyModel(plain, normed=synchronized), own, networks),
        config(name, plain, grad_accum_steps=parts, sync_batchnorm=synchronized, activation_checkpointing=checkpointed),
        1.0,
        seed=0,
        hardware=hardware,
        process=process or Process(),
    )


def random_batch(algorithm: Algorithm, seed: int) -> Batch:
    """A batch as the loader makes it, with every view that the algorithm asks for."""
    generator = torch.Generator().manual_seed(seed)
    batch: Batch = {}
    for source, views in algorithm.needs(algorithm.config).views.items():
        count = 6 if source == "labeled" else 12
        labels = torch.arange(count) % NUM_CLASSES
        images = torch.randint(0, 60, (count, 16, 16, 3), generator=generator, dtype=torch.uint8)
        images[torch.arange(count), :, :, labels] += 150  # a class is a colour
        values = {
            "label": labels if source == "labeled" else torch.full((count,), -1),
            "uniform": torch.rand(count, generator=generator),
            "weight": torch.rand(count, generator=generator),
            "log_probs": torch.nn.functional.one_hot(labels, NUM_CLASSES).float().mul(4).log_softmax(dim=1).half(),
        }
        batch[source] = {view: values.get(view, images) for view in views}
    return batch


def weights(loop: Loop) -> list[torch.Tensor]:
    return [
        value.clone()
        for value in [*loop.algorithm.state_dict().values(), *loop.evaluated_model().state_dict().values()]
    ]


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


PART = """
import copy, sys, torch
from torch import distributed
from selftrain.training.batches import Process
from selftrain.training.checkpoint import load_checkpoint
from tests.algorithms.test_contract import ARMS, new_loop, random_batch, weights

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


@pytest.mark.parametrize("name", IN_PARTS)
def test_a_batch_in_parts_is_a_step_down_the_mean_of_their_losses(name: str) -> None:
    whole, parted = new_loop(name, plain=True), new_loop(name, plain=True, parts=3)
    for loop in (whole, parted):
        loop.algorithm.train()
    for step in range(3):
        batch = random_batch(whole.algorithm, step)
        of_whole, of_parts = whole.one_step(batch), parted.one_step(batch)
        assert of_whole.keys() == of_parts.keys()
        torch.testing.assert_close(of_whole["loss"], of_parts["loss"], rtol=1e-3, atol=1e-5)
    for one, other in zip(weights(whole), weights(parted), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("arm", ARMS)
def test_activations_that_are_computed_again_change_nothing(arm: str) -> None:
    name, parameters = ARMS[arm]
    kept, again = new_loop(name, **parameters), new_loop(name, checkpointed=True, **parameters)
    for loop in (kept, again):
        loop.algorithm.train()
    for step in range(3):
        batch = random_batch(kept.algorithm, step)
        assert torch.equal(kept.one_step(batch)["loss"], again.one_step(batch)["loss"])
    for one, other in zip(weights(kept), weights(again), strict=True):
        assert torch.equal(one, other)


def test_a_batch_in_parts_needs_a_parts_memory() -> None:
    most = {}
    for parts in (1, 3):
        loop, held = new_loop("noisy_student", plain=True, parts=parts), Held()
        loop.algorithm.train()
        with torch.autograd.graph.saved_tensors_hooks(held.pack, lambda saved: saved.tensor):
            loop.one_step(random_batch(loop.algorithm, 0))
        most[parts] = held.most
        assert held.bytes == 0, "the graph is gone after the step"
    assert most[3] < 0.5 * most[1]


class Held:
    """The bytes of what backward passes keep, at each moment."""

    def __init__(self) -> None:
        self.bytes = self.most = 0

    def pack(self, tensor: torch.Tensor) -> "Saved":
        return Saved(tensor, self)


class Saved:
    def __init__(self, tensor: torch.Tensor, held: Held) -> None:
        self.tensor, self.held = tensor.detach(), held
        held.bytes += tensor.nbytes
        held.most = max(held.most, held.bytes)

    def __del__(self) -> None:
        self.held.bytes -= self.tensor.nbytes


KILLED = """
import sys, time
from pathlib import Path
import torch
from selftrain.training.checkpoint import save_checkpoint
from tests.algorithms.test_contract import NAMES, new_loop, random_batch

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
