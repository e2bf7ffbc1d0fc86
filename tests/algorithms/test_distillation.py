"""The distilling algorithms, against losses written out image by image."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from selftrain.algorithms.dynamic_teacher import DynamicTeacher
from selftrain.algorithms.feature_distillation import feature_loss
from selftrain.algorithms.mutual_learning import mutual_loss
from selftrain.learning.algorithm import Algorithm, Batch, find_algorithm
from selftrain.learning.losses import distillation_loss, divergence
from selftrain.learning.runtime import Runtime
from selftrain.plumbing.errors import UserError
from tests.algorithms.given import GivenNetworks
from tests.algorithms.logits import Given, softmax
from tests.algorithms.tiny import new_loop, random_batch

STUDENT = torch.tensor([[1.0, 0.5, 0.0], [0.0, 1.0, -1.0], [2.0, 0.0, 1.0]])
TEACHER = torch.tensor([[3.0, 0.0, 0.0], [0.0, 0.5, 0.0], [-1.0, 0.0, 2.0]])
LABELED, LABELS = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 2.0]]), [0, 1]
OF_LABELED = torch.tensor([[0.5, 0.0, 0.0], [0.0, 2.0, 2.0]])


def kl(teacher: Tensor, student: Tensor, temperature: float) -> float:
    pairs = zip(softmax(teacher, temperature), softmax(student, temperature), strict=True)
    return sum(p * (math.log(p) - math.log(q)) for p, q in pairs)


def cross_entropy() -> float:
    return -sum(math.log(softmax(row)[label]) for row, label in zip(LABELED, LABELS, strict=True)) / 2


def method(name: str, of_round: nn.Module | None = None, **parameters: Any) -> Algorithm:
    found, config = find_algorithm(name, parameters)
    return found(Given(), config, GivenNetworks(lambda _: Given(), of_round))


def batch(known: tuple[int, ...] = (-1, -1, -1)) -> Batch:
    labeled = {"image": LABELED, "label": torch.tensor(LABELS), "log_probs": OF_LABELED.log_softmax(dim=1).half()}
    unlabeled = {"image": STUDENT, "label": torch.tensor(known), "log_probs": TEACHER.log_softmax(dim=1).half()}
    return {"labeled": labeled, "unlabeled": unlabeled}


def needed(algorithm: Algorithm, whole: Batch) -> Batch:
    views = algorithm.needs(algorithm.config).views
    return {source: {view: whole[source][view] for view in names} for source, names in views.items()}


@pytest.mark.parametrize("temperature", [0.5, 1, 4, 20])
def test_equal_logits_have_no_divergence(temperature: float) -> None:
    logits = STUDENT.clone().requires_grad_()
    loss = distillation_loss(logits, logits.detach() + 3, temperature)
    (slope,) = torch.autograd.grad(loss, logits)
    assert loss.item() == pytest.approx(0, abs=1e-5)
    assert slope.abs().max() < 1e-6
    assert torch.equal(divergence(TEACHER.log_softmax(1), TEACHER.log_softmax(1)), torch.zeros(3))


def test_t_squared_keeps_the_gradients_size_when_t_changes() -> None:
    def slope(temperature: float) -> Tensor:
        logits = STUDENT.clone().requires_grad_()
        return torch.autograd.grad(distillation_loss(logits, TEACHER.log_softmax(1), temperature), logits)[0]

    # Section 2.1 of Hinton et al.: at high temperature T² times the gradient is (z - v) / C, logits centred.
    centred = [rows - rows.mean(dim=1, keepdim=True) for rows in (STUDENT, TEACHER)]
    limit = (centred[0] - centred[1]) / 3 / len(STUDENT)
    torch.testing.assert_close(slope(1000.0), limit, rtol=2e-2, atol=1e-4)
    sizes = {temperature: slope(temperature).norm().item() for temperature in (2.0, 4.0, 8.0, 16.0, 32.0)}
    assert max(sizes.values()) / min(sizes.values()) < 1.5
    # Without it, the gradient would fall 256-fold from T = 2 to 32.
    assert (sizes[2.0] / 4) / (sizes[32.0] / 1024) > 200


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("distill_on", ["labeled", "unlabeled", "both"])
def test_hintons_loss(alpha: float, distill_on: str) -> None:
    algorithm = method("distillation", alpha=alpha, temperature=2, distill_on=distill_on)
    each = [kl(t, s, 2) for t, s in zip(OF_LABELED, LABELED, strict=True)] * (distill_on != "unlabeled")
    each += [kl(t, s, 2) for t, s in zip(TEACHER, STUDENT, strict=True)] * (distill_on != "labeled")
    found = algorithm.loss(needed(algorithm, batch()), 0, Runtime())
    assert found["distillation_loss"].item() == pytest.approx(4 * sum(each) / len(each), rel=2e-3)
    expected = alpha * 4 * sum(each) / len(each) + (1 - alpha) * cross_entropy()
    assert found["loss"].item() == pytest.approx(expected, rel=2e-3)
    assert ("unlabeled" in algorithm.needs(algorithm.config).views) == (distill_on != "labeled")


def test_alpha_0_is_labels_alone_and_alpha_1_the_teacher_alone() -> None:
    def slope(alpha: float, labels: list[int], teacher: Tensor) -> Tensor:
        algorithm = method("distillation", alpha=alpha)
        whole = batch()
        whole["labeled"]["label"] = torch.tensor(labels)
        whole["unlabeled"]["log_probs"] = teacher.log_softmax(dim=1)
        algorithm.student.scale.grad = None  # type: ignore[union-attr]
        algorithm.loss(needed(algorithm, whole), 0, Runtime())["loss"].backward()
        return algorithm.student.scale.grad.clone()  # type: ignore[union-attr, operator, return-value]

    assert torch.equal(slope(0, LABELS, TEACHER), slope(0, LABELS, -TEACHER))
    assert not torch.equal(slope(0, LABELS, TEACHER), slope(0, [2, 2], TEACHER))
    assert torch.equal(slope(1, LABELS, TEACHER), slope(1, [2, 2], TEACHER))
    assert not torch.equal(slope(1, LABELS, TEACHER), slope(1, LABELS, -TEACHER))


def test_alpha_is_scheduled_after_a_delay() -> None:
    algorithm = method("distillation", alpha=0.9, alpha_end=0.1, alpha_steps=4, delay_steps=2)
    assert [algorithm.config.alpha_at(step) for step in range(8)] == pytest.approx([0, 0, 0.9, 0.7, 0.5, 0.3, 0.1, 0.1])
    found = algorithm.loss(needed(algorithm, batch()), 4, Runtime())
    expected = 0.5 * found["distillation_loss"] + 0.5 * cross_entropy()
    torch.testing.assert_close(found["loss"], expected)


@pytest.mark.parametrize("teacher_from", ["table", "live"])
def test_what_a_person_said_is_the_prediction(teacher_from: str) -> None:
    algorithm = method("distillation", Given(), teacher=teacher_from, temperature=1, alpha=1, distill_on="unlabeled")
    found = algorithm.loss(needed(algorithm, batch((-1, 2, -1))), 0, Runtime())
    teacher = TEACHER if teacher_from == "table" else STUDENT
    each = [kl(t, s, 1) for t, s in zip(teacher, STUDENT, strict=True)]
    each[1] = -math.log(softmax(STUDENT[1])[2])
    assert found["loss"].item() == pytest.approx(sum(each) / 3, rel=2e-3)


def test_a_consistent_teacher_sees_the_students_view() -> None:
    teacher = Given()
    with torch.no_grad():
        teacher.scale.fill_(-0.5)
    algorithm = method("distillation", teacher, teacher="live", temperature=1, alpha=1)
    found = algorithm.loss(needed(algorithm, batch()), 0, Runtime())
    rows = torch.cat([LABELED, STUDENT])
    assert found["loss"].item() == pytest.approx(sum(kl(-0.5 * row, row, 1) for row in rows) / 5, rel=1e-4)
    assert "log_probs" not in {view for views in algorithm.needs(algorithm.config).views.values() for view in views}


def test_peers_listen_to_the_mean_divergence_of_the_others() -> None:
    rows = [STUDENT, TEACHER, -STUDENT]
    logits = [own.clone().requires_grad_() for own in rows]
    found = mutual_loss(logits, 1.0)
    for number, loss in enumerate(found):
        others = [own for place, own in enumerate(rows) if place != number]
        expected = sum(kl(p, q, 1) for other in others for p, q in zip(other, rows[number], strict=True)) / 3 / 2
        assert loss.item() == pytest.approx(expected, rel=1e-4)
        slopes = torch.autograd.grad(loss, logits, allow_unused=True, retain_graph=True)
        assert [slope is not None for slope in slopes] == [place == number for place in range(3)]


def test_identical_peers_teach_one_another_nothing() -> None:
    algorithm = method("mutual_learning", peers=3)
    assert algorithm.needs(algorithm.config).networks == ("peer2", "peer3")
    found = algorithm.loss(needed(algorithm, batch()), 0, Runtime())
    mutual = [found[name].item() for name in ("mutual_loss", "peer2_mutual_loss", "peer3_mutual_loss")]
    assert mutual == pytest.approx([0, 0, 0], abs=1e-6)
    assert found["loss"].item() == pytest.approx(3 * cross_entropy(), rel=1e-5)
    known = algorithm.loss(needed(algorithm, batch((-1, 2, -1))), 0, Runtime())["labeled_loss"].item()
    assert known == pytest.approx(cross_entropy() - math.log(softmax(STUDENT[1])[2]) / 3, rel=1e-5)


def test_identical_peers_stay_identical_to_a_student_alone() -> None:
    mutual, alone = new_loop("mutual_learning", plain=True), new_loop("supervised", plain=True)
    peer = mutual.algorithm.peer2
    peer.load_state_dict(mutual.algorithm.student.state_dict())
    mutual.algorithm.config = mutual.algorithm.config.model_copy(update={"learn_on": "labeled"})
    alone.algorithm.load_state_dict(
        {f"student.{name}": value for name, value in mutual.algorithm.student.state_dict().items()}
    )
    for loop in (mutual, alone):
        loop.algorithm.train()
    for step in range(3):
        labeled = {"labeled": random_batch(alone.algorithm, step)["labeled"]}
        mutual.one_step(labeled)
        alone.one_step(labeled)
    for name, value in alone.algorithm.student.state_dict().items():
        torch.testing.assert_close(mutual.algorithm.student.state_dict()[name], value, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(peer.state_dict()[name], value, rtol=1e-4, atol=1e-6)


def test_the_average_is_asked_about_the_weak_view() -> None:
    algorithm = method("self_distillation", teacher="average", label_weight=0, distill_on="unlabeled")
    assert algorithm.needs(algorithm.config).average
    whole = batch()
    whole["unlabeled"]["image_weak"] = TEACHER
    runtime = Runtime(averaged_student=lambda images: 2 * images)
    found = algorithm.loss(needed(algorithm, whole), 0, runtime)["loss"].item()
    assert found == pytest.approx(sum(kl(2 * t, s, 1) for t, s in zip(TEACHER, STUDENT, strict=True)) / 3, rel=1e-4)


def test_a_generation_learns_as_born_again_networks_do() -> None:
    algorithm = method("self_distillation")
    found = algorithm.loss(needed(algorithm, batch()), 0, Runtime())
    pairs = [*zip(OF_LABELED, LABELED, strict=True), *zip(TEACHER, STUDENT, strict=True)]
    expected = cross_entropy() + sum(kl(t, s, 1) for t, s in pairs) / 5
    assert found["loss"].item() == pytest.approx(expected, rel=2e-3), "the sum of both losses"


@pytest.mark.parametrize(
    ("updates", "every", "expected"), [("together", 1, "bbb"), ("together", 2, "bsb"), ("alternating", 2, "tst")]
)
def test_whose_turn_it_is(updates: str, every: int, expected: str) -> None:
    loop = new_loop("dynamic_teacher", updates=updates, teacher_every=every)
    algorithm = loop.algorithm
    assert isinstance(algorithm, DynamicTeacher)
    algorithm.train()
    turns = ""
    for step in range(3):
        before = {name: _weights(getattr(algorithm, name)) for name in ("student", "teacher")}
        loop.one_step(random_batch(algorithm, step))
        moved = {name: not torch.equal(_weights(getattr(algorithm, name)), old) for name, old in before.items()}
        turns += "b" if all(moved.values()) else "s" if moved["student"] else "t"
        assert algorithm.teacher.training, "its prediction is asked for in eval mode, and only that"
    assert turns == expected


def test_a_competing_teacher_moves_away_from_the_student_as_far_as_labels_let_it() -> None:
    algorithm = method("dynamic_teacher", challenge=0.5, temperature=1, distill_on="unlabeled")
    assert isinstance(algorithm, DynamicTeacher)
    with torch.no_grad():
        algorithm.teacher.scale.fill_(1.5)
    found = algorithm._teacher_losses(needed(algorithm, batch()), Runtime())
    apart = sum(kl(1.5 * row, row, 1) for row in STUDENT) / 3
    own = -sum(math.log(softmax(1.5 * row)[label]) for row, label in zip(LABELED, LABELS, strict=True)) / 2
    assert found["disagreement"].item() == pytest.approx(apart, rel=1e-4)
    assert found["teacher_loss"].item() == pytest.approx(own - 0.5 * apart, rel=1e-4)
    found["teacher_loss"].backward()
    assert algorithm.student.scale.grad is None, "the student is not asked to come along"


def test_features_may_be_compared_by_direction_alone() -> None:
    one, other = torch.randn(4, 3, 2, 2), torch.randn(4, 3, 2, 2)
    cosines = [
        float((a * b).sum() / (a.norm() * b.norm())) for a, b in zip(one.flatten(1), other.flatten(1), strict=True)
    ]
    found = feature_loss([one], [other], "cosine").item()
    assert found == pytest.approx(1 - sum(cosines) / 4, rel=1e-5)
    assert feature_loss([7 * one], [other], "cosine").item() == pytest.approx(found, rel=1e-5)


def _weights(network: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().reshape(-1) for parameter in network.parameters()])


def test_a_slow_teacher_moves_slowly_and_its_students_gradient_is_its_own() -> None:
    algorithm = method("dynamic_teacher", alpha=1, temperature=1, distill_on="unlabeled", teacher_every=2)
    with torch.no_grad():
        algorithm.teacher.scale.fill_(2.0)  # type: ignore[union-attr]
    assert algorithm.learning(1) == ("student",)
    found = algorithm.loss(needed(algorithm, batch()), 1, Runtime())["loss"]
    assert found.item() == pytest.approx(sum(kl(2 * row, row, 1) for row in STUDENT) / 3, rel=1e-4)
    found.backward()
    assert algorithm.teacher.scale.grad is None  # type: ignore[union-attr]


def test_features_are_compared_at_the_smaller_size_relative_to_the_teachers() -> None:
    generator = torch.Generator().manual_seed(0)
    small, large = torch.randn(2, 3, 2, 2, generator=generator), torch.randn(2, 3, 4, 4, generator=generator)
    pooled = torch.stack(
        [large[:, :, 2 * r : 2 * r + 2, 2 * c : 2 * c + 2].mean(dim=(2, 3)) for r in (0, 1) for c in (0, 1)]
    )
    pooled = pooled.view(2, 2, 2, 3).permute(2, 3, 0, 1)
    expected = sum((small[i] - pooled[i]).square().sum() / pooled[i].square().sum() for i in (0, 1)) / 2
    torch.testing.assert_close(feature_loss([small], [large]), expected)
    torch.testing.assert_close(
        feature_loss([10 * large, small], [10 * small, small]) * 2, feature_loss([large], [small])
    )


def test_projections_learn_and_are_no_part_of_the_student() -> None:
    loop = new_loop("feature_distillation", factor=5)
    batch = random_batch(loop.algorithm, 0)
    loop.algorithm.train()
    losses = [loop.one_step(batch)["feature_loss"].item() for _ in range(12)]
    assert losses[-1] < losses[0]
    assert not any("projection" in name for name in loop.evaluated_model().state_dict())
    assert any("projection" in name for name in loop.algorithm.state_dict())
    alike = new_loop("feature_distillation", teacher_width=8)
    assert list(alike.algorithm.trained_networks()) == ["student"], "features of one shape need no projection"
    assert alike.one_step(batch)["feature_loss"].item() > 0


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("distillation", {"alpha_end": 0.1}, "`alpha_end` and `alpha_steps` belong together"),
        ("distillation", {"temperature": 0}, "temperature"),
        ("distillation", {"alpha": 1.5}, "alpha"),
        ("mutual_learning", {"peers": 1}, "peers"),
        ("dynamic_teacher", {"updates": "alternating"}, "leaves the student no step"),
        ("feature_distillation", {"features": 0}, "features"),
    ],
)
def test_parameters_that_make_no_sense(name: str, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_algorithm(name, parameters)
