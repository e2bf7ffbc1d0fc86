import shutil

import pytest
import torch
from torch._dynamo.utils import counters

from selftrain.learning.algorithm import find_algorithm
from selftrain.networks.models import create_model
from selftrain.plumbing.hardware import Hardware
from selftrain.training.batches import Process
from selftrain.training.loop import Loop
from tests.algorithms.given import GivenNetworks
from tests.algorithms.tiny import NUM_CLASSES, config, new_loop, random_batch


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="PyTorch compiles for the CPU with g++")
def test_compiled_networks_train_as_others_do() -> None:
    plain, names = [], []
    counters.clear()
    for compiled in (False, True):
        torch.manual_seed(0)
        algorithm_class, parameters = find_algorithm("supervised", {})
        changes = {"image_size": 32, "unlabeled_ratio": 0}
        own = config("supervised").model_copy(update=changes)
        own = own.model_copy(update={"noise": own.noise.model_copy(update={"dropout": 0.0})})
        hardware = Hardware(torch.device("cpu"), bf16=False, workers=0, threads=1, compile=compiled)
        algorithm = algorithm_class(
            create_model("test_resnet", NUM_CLASSES, 32), parameters, GivenNetworks(lambda _: torch.nn.Module())
        )
        loop = Loop(algorithm, own, 1.0, seed=0, hardware=hardware, process=Process())
        algorithm.train()
        batch = random_batch(algorithm, 0)
        plain.append([loop.one_step(batch)["loss"].item() for _ in range(3)])
        names.append(list(algorithm.student.state_dict()))
    assert counters["stats"]["unique_graphs"] >= 1, "compiled at all"
    assert plain[0] == pytest.approx(plain[1], rel=1e-2)
    assert names[0] == names[1], "weights keep their names"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="PyTorch compiles for the CPU with g++")
def test_two_gradients_of_one_pass_may_be_taken_of_compiled_networks() -> None:
    found = []
    for compiled in (False, True):
        loop = new_loop("meta_pseudo_labels", plain=True, compiled=compiled, student_labeled_factor=0.5)
        loop.algorithm.train()
        batches = [random_batch(loop.algorithm, step) for step in range(3)]
        found.append([loop.one_step(batch)["student_labeled_loss"].item() for batch in batches])
    assert found[0] == pytest.approx(found[1], rel=1e-3)
