"""The attacks against Foolbox's, on a small network, and their definitions."""

import pytest
import torch
from foolbox import PyTorchModel
from foolbox.attacks import LinfFastGradientAttack, LinfProjectedGradientDescentAttack

from selftrain.evaluation.robustness.adversarial import fgsm, pgd

EPSILONS = [1 / 255, 4 / 255, 16 / 255]


@pytest.fixture
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.Tanh(), torch.nn.Flatten(), torch.nn.Linear(8 * 8 * 8, 5)
    ).eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(6, 3, 10, 10, generator=torch.Generator().manual_seed(1))


LABELS = torch.tensor([0, 1, 2, 3, 4, 0])


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_fgsm_is_foolboxs(network: torch.nn.Module, images: torch.Tensor, epsilon: float) -> None:
    attack = LinfFastGradientAttack(random_start=False)
    expected, _, _ = attack(PyTorchModel(network, bounds=(0, 1), device="cpu"), images, LABELS, epsilons=epsilon)
    torch.testing.assert_close(fgsm(network, images, LABELS, epsilon), expected)


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_pgd_is_foolboxs(network: torch.nn.Module, images: torch.Tensor, epsilon: float) -> None:
    attack = LinfProjectedGradientDescentAttack(rel_stepsize=0.25, steps=10, random_start=False)
    expected, _, _ = attack(PyTorchModel(network, bounds=(0, 1), device="cpu"), images, LABELS, epsilons=epsilon)
    found = pgd(network, images, LABELS, epsilon, steps=10)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("attack", [fgsm, lambda *given: pgd(*given, steps=10)])
def test_attacks_stay_within_their_size_and_raise_the_loss(network, images, attack) -> None:  # type: ignore[no-untyped-def]
    def loss(shown: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(network(shown), LABELS, reduction="none")

    attacked = attack(network, images, LABELS, 8 / 255)
    assert (attacked - images).abs().max() <= 8 / 255 + 1e-6
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    assert (loss(attacked) > loss(images)).all()
    assert not attacked.requires_grad
    # Every image's attack is its own: the batch plays no part.
    torch.testing.assert_close(attack(network, images[2:3], LABELS[2:3], 8 / 255), attacked[2:3])
