"""What a student's feedback is, against the mathematics of it: enumerated, differentiated, or by hand, in float64."""

import copy
import itertools
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from selftrain.learning.gradients import cosine, dot_product, sampled_labels
from selftrain.learning.runtime import Runtime
from selftrain.params.train import TrainConfig
from selftrain.plumbing.errors import UserError
from selftrain.training.optimization import Descent
from tests.algorithms.teaching import CLASSES, LABELED, PLAIN, UNLABELED, Case, flat, in_float64, labeled_loss
from tests.training.conftest import TINY

__all__ = ["in_float64"]


def true_gradient(case: Case, learning_rate: float) -> Tensor:
    """∂/∂θ_T of the labeled loss after the student's expected step, differentiated through that step (Equation 4)."""
    images = case.batch["unlabeled"]["image"]
    # The expectation over hard labels of a loss that is linear in them is the loss at the distribution.
    probs = case.teacher(images).softmax(dim=1)
    loss = -(probs * case.student(images).log_softmax(dim=1)).sum(dim=1).mean()
    named = dict(case.student.named_parameters())
    slopes = torch.autograd.grad(loss, [*named.values()], create_graph=True)
    stepped = {name: value - learning_rate * slope for (name, value), slope in zip(named.items(), slopes, strict=True)}
    return flat(torch.autograd.grad(labeled_loss(case.student, stepped, case.batch), [*case.teacher.parameters()]))


def expected_gradient(learning_rate: float, **config: Any) -> Tensor:
    """The expectation of the teacher's feedback gradient over every hard labeling of the batch.

    The losses are means over the batch and the likelihood of a labeling is a product over it: hence the number of images.
    """
    total = torch.zeros(())
    for labels in itertools.product(range(CLASSES), repeat=UNLABELED):
        case = Case(learning_rate, **config)
        probs = case.teacher(case.batch["unlabeled"]["image"]).softmax(dim=1).detach()
        likelihood = probs[torch.arange(UNLABELED), torch.tensor(labels)].prod()
        case.update(labels)
        total = total + likelihood * case.feedback_gradient() * UNLABELED
    return total


@pytest.mark.parametrize("feedback", ["dot_product", "finite_difference"])
def test_the_expected_update_is_the_labeled_losss_gradient_through_the_students_step(feedback: str) -> None:
    errors = []
    for learning_rate in (0.1, 0.01, 0.001):
        expected = expected_gradient(learning_rate, feedback=feedback)
        true = true_gradient(Case(), learning_rate)
        errors.append(((expected - true).norm() / true.norm()).item())
        if learning_rate < 0.1:
            assert functional.cosine_similarity(expected, true, dim=0) > 0.999
    # A tenth of the learning rate, a tenth of the error.
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.2)
    assert errors[1] / errors[2] == pytest.approx(10, rel=0.05)


def test_the_authors_sign_ascends_what_the_paper_descends() -> None:
    paper, code = (expected_gradient(0.001, feedback_sign=sign) for sign in ("paper", "authors_code"))
    torch.testing.assert_close(code, -paper)
    assert functional.cosine_similarity(code, true_gradient(Case(), 0.001), dim=0) < -0.999


def test_exact_feedback_is_the_gradient_through_the_students_step() -> None:
    case = Case(0.1, feedback="exact", labels="soft")
    true = true_gradient(case, 0.1)
    case.update()
    torch.testing.assert_close(case.feedback_gradient(), true)


@pytest.mark.parametrize("feedback", ["cosine", "dot_product", "finite_difference"])
def test_soft_labels_without_exact_feedback_teach_the_teacher_nothing(feedback: str) -> None:
    case = Case(0.1, feedback=feedback, labels="soft")
    found = case.update()
    assert found["feedback"] != 0
    torch.testing.assert_close(case.feedback_gradient(), torch.zeros_like(case.feedback_gradient()))


def by_hand(
    case: Case, labels: tuple[int, ...], learning_rate: float, feedback: str, labeled_factor: float = 0.0
) -> float:
    """The definition of h, from the student and batch as they are; its own labeled loss moves the student before."""
    logits = case.student(case.batch["unlabeled"]["image"])
    slopes = torch.autograd.grad(functional.cross_entropy(logits, torch.tensor(labels)), [*case.student.parameters()])
    old = {name: value.detach() for name, value in case.student.named_parameters()}
    if labeled_factor:
        loss = labeled_loss(case.student, dict(case.student.named_parameters()), case.batch)
        own = torch.autograd.grad(loss, [*case.student.parameters()])
        rate = learning_rate * labeled_factor
        old = {name: value - rate * slope for (name, value), slope in zip(old.items(), own, strict=True)}
    new = {
        name: (value - learning_rate * slope).requires_grad_()
        for (name, value), slope in zip(old.items(), slopes, strict=True)
    }
    loss = labeled_loss(case.student, new, case.batch)
    labeled = flat(torch.autograd.grad(loss, [*new.values()], retain_graph=True))
    if feedback == "dot_product":
        return (learning_rate * labeled @ flat(slopes)).item()
    if feedback == "cosine":
        return functional.cosine_similarity(labeled, flat(slopes), dim=0).item()
    return (labeled_loss(case.student, old, case.batch) - loss).item()


@pytest.mark.parametrize("feedback", ["cosine", "dot_product", "finite_difference"])
@pytest.mark.parametrize(
    "optimizer", [{}, {"optimizer_options": {"momentum": 0.9}, "weight_decay": 0.3, "clip_grad": 0.01}]
)
@pytest.mark.parametrize("labeled_factor", [0.0, 1.0])
def test_feedback_is_its_definition_whatever_the_students_optimizer_carries(
    feedback: str, optimizer: dict[str, Any], labeled_factor: float
) -> None:
    case = Case(0.2, optimizer, feedback=feedback, student_labeled_factor=labeled_factor)
    for labels in [(0, 1, 2), (1, 1, 0), (2, 0, 0)]:
        expected = by_hand(case, labels, 0.2, feedback, labeled_factor)
        before = copy.deepcopy(case.student.state_dict())
        assert case.update(labels)["feedback"].item() == pytest.approx(expected, rel=1e-9)
        assert not torch.equal(before["1.weight"], case.student.state_dict()["1.weight"])


def test_at_the_new_student_momentum_and_decay_get_into_the_difference() -> None:
    optimizer = {"optimizer_options": {"momentum": 0.9}, "weight_decay": 0.3}
    case = Case(0.2, optimizer, feedback="finite_difference", feedback_at="new_student")
    case.update((0, 1, 2))
    old = labeled_loss(case.student, dict(case.student.named_parameters()), case.batch).item()
    plain = by_hand(case, (1, 1, 0), 0.2, "finite_difference")
    found = case.update((1, 1, 0))["feedback"].item()
    new = labeled_loss(case.student, dict(case.student.named_parameters()), case.batch).item()
    assert found == pytest.approx(old - new, rel=1e-9)
    assert found != pytest.approx(plain, rel=1e-2)


@pytest.mark.parametrize("feedback", ["cosine", "dot_product", "finite_difference"])
@pytest.mark.parametrize("feedback_at", ["own_step", "plain_step", "new_student"])
@pytest.mark.parametrize("right", [True, False])
def test_labels_that_help_the_student_get_likelier_and_labels_that_hurt_less_likely(
    feedback: str, feedback_at: str, right: bool
) -> None:
    case = Case(0.1, feedback=feedback, feedback_at=feedback_at)
    # The unlabeled images are labeled ones whose labels the teacher does not see: right labels help, wrong ones hurt.
    labeled = case.batch["labeled"]
    images = labeled["image"][:UNLABELED]
    case.batch["unlabeled"] |= {"image": images, "image_weak": images}
    labels = labeled["label"][:UNLABELED] if right else (labeled["label"][:UNLABELED] + 1) % CLASSES
    before = functional.cross_entropy(case.teacher(images), labels)
    found = case.update(tuple(labels.tolist()))
    assert (found["feedback"] > 0) == right
    parameters = dict(case.teacher.named_parameters())
    sizes = [value.numel() for value in parameters.values()]
    moved = {
        name: value - 1e-3 * part.view_as(value)
        for (name, value), part in zip(parameters.items(), case.feedback_gradient().split(sizes), strict=True)
    }
    after = functional.cross_entropy(functional_call(case.teacher, moved, (images,)), labels)
    assert (after < before) == right


def test_the_baseline_is_the_moving_average_of_what_came_before() -> None:
    case = Case(0.2, baseline=True, baseline_decay=0.9)
    average = 0.0
    for labels in [(0, 1, 2), (1, 1, 0), (2, 0, 0)]:
        found = case.update(labels)
        ratio = found["feedback_loss"] / functional.cross_entropy(
            case.teacher(case.batch["unlabeled"]["image"]), torch.tensor(labels)
        )
        assert ratio.item() == pytest.approx(found["feedback"].item() - average, rel=1e-6)
        average += 0.1 * (found["feedback"].item() - average)


def test_a_students_step_depends_on_labeled_images_through_its_teacher_alone() -> None:
    weights = []
    for factor in (1.0, -3.0):
        case = Case(0.1)
        torch.manual_seed(3)
        case.student.insert(2, nn.BatchNorm1d(4))
        case.descent = Descent(case.student, TrainConfig.model_validate(TINY | PLAIN), 10, 1)
        case.runtime = Runtime({"student": case.descent, "teacher": case.recorded})
        case.batch["labeled"]["image"] *= factor
        case.update((0, 1, 2))
        weights.append(copy.deepcopy(case.student.state_dict()))
    assert all(torch.equal(one, other) for one, other in zip(weights[0].values(), weights[1].values(), strict=True))


def test_waiting_students_stand_still() -> None:
    case = Case(0.1, student_wait_steps=1)
    before = copy.deepcopy(case.student.state_dict())
    found = case.update((0, 1, 2))
    assert all(torch.equal(before[name], value) for name, value in case.student.state_dict().items())
    assert "feedback" not in found
    assert case.algorithm.first_step("student") == 1


def test_a_persons_labels_stand_and_are_not_the_teachers_to_answer_for() -> None:
    case = Case(0.1)
    case.batch["unlabeled"]["label"] = torch.tensor([2, 2, 2])
    case.update((0, 1, 0))
    assert case.feedback_gradient().norm() < 1e-12
    expected = Case(0.1)
    expected.update((2, 2, 2))
    for one, other in zip(case.student.parameters(), expected.student.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_sampled_labels_follow_the_distribution() -> None:
    logits = torch.tensor([[0.3, -1.0, 2.0], [5.0, 0.0, 0.0]])
    uniforms = torch.linspace(0, 1, 10_001)[:-1]
    for row in logits:
        labels = sampled_labels(row.expand(len(uniforms), -1), uniforms)
        shares = torch.bincount(labels, minlength=3) / len(uniforms)
        torch.testing.assert_close(shares, row.softmax(dim=0), atol=2e-4, rtol=0)
    assert sampled_labels(logits, torch.tensor([0.0, 0.9999999])).tolist() == [0, 2]


def test_products_of_gradients_skip_what_a_loss_does_not_touch() -> None:
    one = (torch.tensor([1.0, 2.0]), None, torch.tensor([[3.0]]))
    other = (torch.tensor([4.0, 5.0]), torch.tensor([7.0]), torch.tensor([[6.0]]))
    assert dot_product(one, other) == 32
    assert cosine(one, one) == pytest.approx(1)
    assert cosine((torch.zeros(2),), (torch.ones(2),)) == 0
    tiny = (torch.full((10,), 1e-14, dtype=torch.float32),)
    assert cosine(tiny, tiny).item() == pytest.approx(1, rel=1e-4)


def test_exact_feedback_needs_soft_labels() -> None:
    from selftrain.learning.algorithm import find_algorithm

    with pytest.raises(UserError, match="labels: soft"):
        find_algorithm("meta_pseudo_labels", {"feedback": "exact"})


@pytest.mark.parametrize("labels", ["hard", "argmax", "soft"])
def test_what_the_student_is_given_to_learn(labels: str) -> None:
    case = Case(0.1, labels=labels, label_smoothing=0.3, feedback="none")
    images = case.batch["unlabeled"]["image"]
    probs = case.teacher(images).softmax(dim=1).detach()
    case.batch["unlabeled"]["label"] = torch.tensor([-1, -1, 2])
    student_logits = case.student(images)
    drawn = {"hard": [0, 1], "argmax": probs[:2].argmax(dim=1).tolist()}
    targets = probs.clone() if labels == "soft" else functional.one_hot(torch.tensor([*drawn[labels], 2]), 3).double()
    targets[2] = torch.tensor([0.0, 0.0, 1.0])
    expected = -((targets * 0.7 + 0.1) * student_logits.log_softmax(dim=1)).sum(dim=1).mean()
    assert case.update((0, 1, 0))["loss"].item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_feedback_pass_has_no_noise_in_the_student() -> None:
    case = Case(0.1)
    seen: list[dict[str, int]] = []
    case.runtime.noised_rows = {case.student: lambda counts: seen.append(counts) or nullcontext()}
    case.update((0, 1, 2))
    assert seen == [{"unlabeled": UNLABELED}, {"feedback": LABELED}]
    from selftrain.params.noise import NoiseConfig

    assert NoiseConfig().on("feedback") == ()
