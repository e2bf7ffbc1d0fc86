"""A run's networks: the teacher that sees what its student sees, and networks that start from it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from selftrain.algorithms.distillation import Distillation
from selftrain.learning.algorithm import find_algorithm
from selftrain.networks.export import export_model
from selftrain.networks.freezing import train_mode
from selftrain.networks.models import create_model, normalization, to_input
from selftrain.plumbing.errors import UserError
from selftrain.training.run_networks import RunNetworks

CLASSES = ["a", "b", "c"]
CPU = torch.device("cpu")


def teacher_folder(folder: Path, model: str, size: int, classes: list[str] = CLASSES) -> nn.Module:
    torch.manual_seed(1)
    network = create_model(model, len(classes), size)
    export_model(network, folder, classes=classes, image_size=size, crop_fraction=1.0)
    return network.eval()


def pixels() -> Tensor:
    return torch.randint(0, 256, (5, 32, 32, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def students_input(networks: RunNetworks) -> Tensor:
    return to_input(pixels(), *normalization(networks.student(None)), CPU)


@pytest.mark.parametrize("model", ["test_resnet", "test_efficientnet"])
def test_a_teacher_undoes_its_students_normalisation(model: str, tmp_path: Path, tiny: Any) -> None:
    network = teacher_folder(tmp_path / "t", model, 32)
    networks = RunNetworks(tmp_path / "t", CLASSES, tiny(), CPU)
    images = students_input(networks)
    own = to_input(pixels(), *normalization(network), CPU)
    torch.testing.assert_close(networks.teacher().log_probs(images), network(own).log_softmax(1), atol=1e-4, rtol=1e-4)
    assert (normalization(network) == ([0.5] * 3, [0.5] * 3)) == (model == "test_resnet")


def test_a_teacher_sees_images_at_its_own_size(tmp_path: Path, tiny: Any) -> None:
    network = teacher_folder(tmp_path / "t", "test_resnet", 48)
    networks = RunNetworks(tmp_path / "t", CLASSES, tiny(), CPU)
    images = students_input(networks)
    larger = nn.functional.interpolate(images, size=(48, 48), mode="bilinear", antialias=True)
    torch.testing.assert_close(
        networks.teacher().log_probs(images), network(larger).log_softmax(1), atol=1e-4, rtol=1e-4
    )


def test_a_teacher_is_frozen_and_in_eval_mode_after_any_train_call(tmp_path: Path, tiny: Any) -> None:
    teacher_folder(tmp_path / "t", "test_resnet", 32)
    networks = RunNetworks(tmp_path / "t", CLASSES, tiny(), CPU)
    algorithm_class, config = find_algorithm("distillation", {"teacher": "live"})
    algorithm = algorithm_class(networks.student(None), config, networks)
    assert isinstance(algorithm, Distillation)
    for call in (algorithm.train, lambda: algorithm.train(True), lambda: train_mode(algorithm), algorithm.eval):
        call()
        assert not any(part.training for part in algorithm.teacher.network.modules())  # type: ignore[union-attr]
    assert not any(weight.requires_grad for weight in algorithm.teacher.network.parameters())  # type: ignore[union-attr]
    mine = {id(weight) for weight in algorithm.parameters()}
    assert not mine & {id(weight) for weight in algorithm.teacher.network.parameters()}  # type: ignore[union-attr]
    assert all(name.startswith("student.") for name in algorithm.state_dict())


def test_a_network_starts_from_the_rounds_teacher(tmp_path: Path, tiny: Any) -> None:
    network = teacher_folder(tmp_path / "t", "test_resnet", 32)
    config = tiny(networks={"teacher": {"init": "teacher", "learning_rate": 1e-4}, "other": {}})
    networks = RunNetworks(tmp_path / "t", CLASSES, config, CPU)
    networks.student(None)
    started, other = networks.new("teacher"), networks.new("other")
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in started.state_dict().items())
    assert not torch.equal(next(other.parameters()), next(network.parameters()))


@pytest.mark.parametrize("model", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet", "test_mambaout"])
def test_feature_channels_are_those_of_the_feature_maps(model: str, tmp_path: Path, tiny: Any) -> None:
    teacher_folder(tmp_path / "t", model, 32)
    teacher = RunNetworks(tmp_path / "t", CLASSES, tiny(), CPU)
    images = students_input(teacher)
    maps = teacher.teacher().features(images, 3)
    assert [own.shape[1] for own in maps] == teacher.teacher().feature_channels(3)
    assert all(own.dim() == 4 and not own.requires_grad for own in maps)


def test_user_errors(tmp_path: Path, tiny: Any) -> None:
    without = RunNetworks(None, CLASSES, tiny(networks={"teacher": {"init": "teacher"}}), CPU)
    without.student(None)
    with pytest.raises(UserError, match="there is no teacher to start from"):
        without.new("teacher")
    with pytest.raises(UserError, match="runs the round's teacher, and there is none"):
        without.teacher()
    teacher_folder(tmp_path / "t", "test_resnet", 32, ["a", "b", "x"])
    networks = RunNetworks(tmp_path / "t", CLASSES, tiny(networks={"peer2": {"model": "test_efficientnet"}}), CPU)
    student = networks.student(None)
    with pytest.raises(UserError, match="knows other classes than the corpus"):
        networks.teacher()
    with pytest.raises(UserError, match="another mean and deviation than the student's 'test_resnet'"):
        networks.new("peer2")
    with pytest.raises(UserError, match="has only 5 of them"):
        networks.feature_channels(student, 9)
    with pytest.raises(UserError, match="a WideResNet gives no feature maps"):
        networks.feature_channels(create_model("wide_resnet28_2", 3, 32), 1)
