import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from selftrain.algorithms.reduced_meta_pseudo_labels import (
    ReducedMetaPseudoLabels,
    ReducedMetaPseudoLabelsConfig,
    ReducedTeacher,
)
from selftrain.learning.algorithm import Batch
from selftrain.learning.runtime import Runtime
from selftrain.params.train import TrainConfig
from selftrain.training.optimization import Descent
from tests.algorithms.given import GivenNetworks
from tests.training.conftest import TINY

LOG_PROBS = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.3, 0.4, 0.3]]).log()


def test_the_reduced_teacher_is_a_perceptron_of_five_layers() -> None:
    teacher = ReducedTeacher(10, 128, residual=True)
    sizes = [(layer.in_features, layer.out_features) for layer in teacher.perceptron if isinstance(layer, nn.Linear)]
    assert sizes == [(10, 128), (128, 128), (128, 128), (128, 128), (128, 10)]
    assert sum(isinstance(layer, nn.ReLU) for layer in teacher.perceptron) == 4
    assert not isinstance(teacher.perceptron[-1], nn.ReLU)


def test_a_residual_teacher_starts_as_the_table_says() -> None:
    teacher = ReducedTeacher(3, 8, residual=True)
    torch.testing.assert_close(teacher(LOG_PROBS).softmax(dim=1), LOG_PROBS.exp())
    assert not torch.allclose(ReducedTeacher(3, 8, residual=False)(LOG_PROBS).softmax(dim=1), LOG_PROBS.exp())


def batch(log_probs: torch.Tensor = LOG_PROBS) -> Batch:
    generator = torch.Generator().manual_seed(0)
    return {
        "labeled": {"image": torch.randn(4, 3, 2, 2, generator=generator), "label": torch.tensor([0, 1, 2, 0])},
        "unlabeled": {
            "image": torch.randn(3, 3, 2, 2, generator=generator),
            "label": torch.full((3,), -1),
            "uniform": torch.tensor([0.1, 0.5, 0.9]),
            "log_probs": log_probs.half(),
        },
    }


class Student(nn.Sequential):
    num_classes = 3


def algorithm(**parameters: object) -> tuple[ReducedMetaPseudoLabels, Runtime]:
    torch.manual_seed(0)
    config = ReducedMetaPseudoLabelsConfig.model_validate({"hidden": 8, **parameters})
    student = Student(nn.Flatten(), nn.Linear(12, 3))
    made = ReducedMetaPseudoLabels(student, config, GivenNetworks(lambda _: pytest.fail("it has no other network")))
    train = TrainConfig.model_validate(TINY | {"learning_rate": 0.1, "warmup": 0})
    return made, Runtime({name: Descent(net, train, 100, 1) for name, net in made.trained_networks().items()})


def test_what_a_person_corrected_keeps_its_label_whatever_the_teacher_learns() -> None:
    certain = torch.tensor([[-30000.0, 0.0, -30000.0]] * 3)
    teacher = ReducedTeacher(3, 8, residual=True)
    nn.init.normal_(teacher.perceptron[-1].weight, std=10)
    torch.testing.assert_close(teacher(certain.half()).softmax(dim=1), torch.tensor([[0.0, 1.0, 0.0]] * 3))


def test_the_identity_factor_holds_the_teacher_to_the_table() -> None:
    free, runtime = algorithm(residual=False, identity_factor=1.0, feedback="none")
    first = free.update(batch(), 0, runtime)["identity_loss"]
    for step in range(1, 60):
        last = free.update(batch(), step, runtime)["identity_loss"]
    probs = LOG_PROBS.half().float().exp()
    entropy = -(probs * probs.log()).sum(dim=1).mean()
    assert last - entropy < 0.1 * (first - entropy)
    bound, runtime = algorithm(residual=True, identity_factor=1.0, feedback="none")
    found = bound.update(batch(), 0, runtime)
    assert found["identity_loss"].item() == pytest.approx(entropy.item(), rel=1e-3)


@pytest.mark.parametrize("factor", [0.0, 1.0])
def test_the_student_sees_labeled_images_only_if_asked(factor: float) -> None:
    weights = []
    for labels in ([0, 1, 2, 0], [1, 2, 0, 1]):
        made, runtime = algorithm(student_labeled_factor=factor, feedback="none")
        given = batch()
        given["labeled"]["label"] = torch.tensor(labels)
        found = made.update(given, 0, runtime)
        weights.append(copy.deepcopy(made.student.state_dict()["1.weight"]))
    assert torch.equal(*weights) == (factor == 0)
    # Lots 0.1, 0.5 and 0.9 draw classes 0, 2 and 2.
    torch.manual_seed(0)
    fresh = Student(nn.Flatten(), nn.Linear(12, 3))
    expected = functional.cross_entropy(fresh(given["unlabeled"]["image"]), torch.tensor([0, 2, 2]))
    expected = expected + factor * functional.cross_entropy(fresh(given["labeled"]["image"]), torch.tensor(labels))
    assert found["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
