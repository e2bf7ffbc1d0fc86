import math

import pytest
import torch
from torch.nn import functional

from selftrain.algorithms.noisy_student import NoisyStudent, NoisyStudentConfig, noisy_student_loss
from selftrain.learning import losses
from selftrain.learning.runtime import Runtime
from tests.algorithms.given import GivenNetworks


def by_hand(logits: list[float], target: list[float]) -> float:
    normaliser = math.log(sum(math.exp(value) for value in logits))
    return -sum(p * (value - normaliser) for p, value in zip(target, logits, strict=True))


def test_soft_cross_entropy_by_hand() -> None:
    logits, targets = [[1.0, -2.0, 0.5], [0.0, 3.0, 3.0]], [[0.2, 0.3, 0.5], [0.0, 1.0, 0.0]]
    found = losses.soft_cross_entropy(torch.tensor(logits), torch.tensor(targets))
    assert found.tolist() == pytest.approx([by_hand(*pair) for pair in zip(logits, targets, strict=True)], rel=1e-5)


def test_hard_targets_are_ordinary_cross_entropy() -> None:
    logits, labels = torch.randn(6, 4), torch.tensor([0, 3, 1, 2, 2, 0])
    found = losses.soft_cross_entropy(logits, losses.one_hot(labels, 4))
    assert torch.allclose(found, functional.cross_entropy(logits, labels, reduction="none"), atol=1e-6)


def test_temperature() -> None:
    log_probs = torch.tensor([[0.7, 0.2, 0.1]]).log()
    assert torch.allclose(losses.with_temperature(log_probs, 1.0), torch.tensor([[0.7, 0.2, 0.1]]))
    squared = torch.tensor([[0.49, 0.04, 0.01]])
    assert torch.allclose(losses.with_temperature(log_probs, 0.5), squared / squared.sum())


def test_noisy_student_averages_as_section_3_1_as_algorithm_1_or_as_the_code() -> None:
    logits = torch.randn(2 + 6, 3)
    labels, pseudo_labels = torch.tensor([2, 0]), torch.rand(6, 3).softmax(dim=1)
    targets = [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], *pseudo_labels.tolist()]
    each = [by_hand(*pair) for pair in zip(logits.tolist(), targets, strict=True)]
    ones = torch.ones(6)
    given = (logits[:2], labels, logits[2:], pseudo_labels)
    loss, labeled, unlabeled = noisy_student_loss(*given, ones, "all_images")
    assert loss.item() == pytest.approx(sum(each) / 8, rel=1e-5)
    assert labeled.item() == pytest.approx(sum(each[:2]) / 2, rel=1e-5)
    assert unlabeled.item() == pytest.approx(sum(each[2:]) / 6, rel=1e-5)
    loss, _, _ = noisy_student_loss(*given, ones, "each_source")
    assert loss.item() == pytest.approx(sum(each[:2]) / 2 + sum(each[2:]) / 6, rel=1e-5)
    loss, _, _ = noisy_student_loss(*given, ones, "labeled_size")
    assert loss.item() == pytest.approx(sum(each) / 2, rel=1e-5)
    weights = [0.5, 1.0, 0.0, 0.25, 1.0, 0.75]
    loss, _, unlabeled = noisy_student_loss(*given, torch.tensor(weights), "all_images")
    weighed = [weight * one for weight, one in zip(weights, each[2:], strict=True)]
    assert unlabeled.item() == pytest.approx(sum(weighed) / 6, rel=1e-5)
    assert loss.item() == pytest.approx((sum(each[:2]) + sum(weighed)) / 8, rel=1e-5)


def test_noisy_student_smooths_labels_and_leaves_soft_pseudo_labels() -> None:
    logits, labels, pseudo_labels = torch.randn(5, 4), torch.tensor([2, 0]), torch.rand(3, 4).softmax(dim=1)
    given = (logits[:2], labels, logits[2:], pseudo_labels, torch.ones(3), "all_images", 0.1)
    _, labeled, unlabeled = noisy_student_loss(*given)
    assert torch.allclose(labeled, functional.cross_entropy(logits[:2], labels, label_smoothing=0.1))
    assert torch.allclose(unlabeled, functional.cross_entropy(logits[2:], pseudo_labels))


@pytest.mark.parametrize(
    ("labels", "temperature", "smoothing"),
    [("soft", 1.0, 0.0), ("soft", 0.5, 0.0), ("hard", 1.0, 0.0), ("soft", 1.0, 0.1), ("hard", 1.0, 0.1)],
)
def test_noisy_student_takes_the_teachers_prediction_as_asked(
    labels: str, temperature: float, smoothing: float
) -> None:
    student = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    config = NoisyStudentConfig(labels=labels, temperature=temperature, label_smoothing=smoothing)  # type: ignore[arg-type]
    algorithm = NoisyStudent(student, config, GivenNetworks(lambda _: student))
    images = torch.randn(5, 3, 2, 2)
    log_probs = torch.randn(3, 3).log_softmax(dim=1)
    batch = {
        "labeled": {"image": images[:2], "label": torch.tensor([1, 2])},
        "unlabeled": {"image": images[2:], "log_probs": log_probs, "weight": torch.ones(3)},
    }
    if labels == "soft":
        expected = functional.cross_entropy(student(images[2:]), (log_probs / temperature).softmax(dim=1))
    else:
        expected = functional.cross_entropy(student(images[2:]), log_probs.argmax(dim=1), label_smoothing=smoothing)
    assert algorithm.loss(batch, 0, Runtime())["unlabeled_loss"].item() == pytest.approx(expected.item(), rel=1e-5)
