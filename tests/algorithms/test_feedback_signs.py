"""How often feedback has the sign of what the labels did to the student, by optimizer."""

import pytest
import torch
from torch.nn import functional

from selftrain.learning.feedback import FeedbackConfig
from selftrain.learning.runtime import plain_gradient
from tests.algorithms.teaching import CLASSES, UNLABELED, Case, in_float64, labeled_loss, network

__all__ = ["in_float64"]


def signs(optimizer: str, feedback_at: str, feedback: str) -> float:
    """How often h has the sign of what the student's own step does to the labeled loss, over tiny students."""
    right, seeds = 0, 120
    for seed in range(seeds):
        options = {"optimizer": optimizer, "optimizer_options": {}, "weight_decay": 0.01}
        case = Case(0.01, options, feedback=feedback, feedback_at=feedback_at)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in [*case.student.parameters(), *case.teacher.parameters()]:
                parameter.copy_(0.7 * torch.randn(parameter.shape, generator=generator))
        for source in case.batch.values():
            source["image"].copy_(torch.randn(source["image"].shape, generator=generator))
        # Momentum and second moments from steps before.
        for _ in range(3):
            case.update(tuple(torch.randint(CLASSES, (UNLABELED,), generator=generator).tolist()))
        named = [name for name, _ in case.student.named_parameters()]
        labels = torch.randint(CLASSES, (UNLABELED,), generator=generator)
        loss = functional.cross_entropy(case.student(case.batch["unlabeled"]["image"]), labels)
        gradient = plain_gradient(loss, case.descent.parameters)
        zeros = tuple(torch.zeros_like(slope) for slope in gradient if slope is not None)
        losses = [
            labeled_loss(case.student, dict(zip(named, case.descent.stepped(given), strict=True)), case.batch).item()
            for given in (zeros, gradient)
        ]
        feedback_found = case.update(tuple(labels.tolist()))["feedback"].item()
        right += (feedback_found > 0) == (losses[0] > losses[1])
    return right / seeds


@pytest.mark.parametrize("feedback", ["cosine", "dot_product", "finite_difference"])
def test_with_adamw_its_own_step_tells_what_the_labels_did(feedback: str) -> None:
    assert signs("adamw", "own_step", feedback) >= (1 if feedback == "cosine" else 0.95)
    assert signs("adamw", "plain_step", feedback) < 0.93, "whose steps have another direction than gradients"


def test_with_nesterovs_momentum_both_do() -> None:
    assert signs("sgd", "plain_step", "cosine") >= 0.95
    assert signs("sgd", "own_step", "cosine") >= 0.95


def test_unless_another_is_asked_for_it_is_the_own_step() -> None:
    assert FeedbackConfig().feedback_at == "own_step"


def test_asking_where_a_step_leads_changes_nothing() -> None:
    one, other = (Case(0.05, {"optimizer": "adamw", "optimizer_options": {}, "weight_decay": 0.1}) for _ in range(2))
    for turn in range(4):
        loss = one.student(one.batch["unlabeled"]["image"]).square().mean()
        found = one.descent.stepped(plain_gradient(loss, one.descent.parameters))
        for case in (one, other):
            loss = case.student(case.batch["unlabeled"]["image"]).square().mean()
            case.descent.descend(plain_gradient(loss, case.descent.parameters))
        for expected, parameter, same in zip(found, one.student.parameters(), other.student.parameters(), strict=True):
            torch.testing.assert_close(parameter, same)
            torch.testing.assert_close(expected, parameter)
        assert turn == 0 or not torch.equal(found[0], next(network(2).parameters()))
