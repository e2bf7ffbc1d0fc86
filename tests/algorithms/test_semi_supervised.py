"""Losses of the methods that label their own images, against references written out image by image."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from selftrain.algorithms.mean_teacher import sigmoid_ramp, squared_difference
from selftrain.algorithms.meta_pseudo_labels import mixup, mixup_loss
from selftrain.algorithms.uda import annealed_bound, annealed_cross_entropy
from selftrain.learning.algorithm import Algorithm, Batch, find_algorithm
from selftrain.learning.losses import confident_labels, consistency_loss, ramp
from selftrain.learning.runtime import Runtime
from selftrain.plumbing.errors import UserError
from tests.algorithms.given import GivenNetworks
from tests.algorithms.logits import Given, softmax

WEAK = torch.tensor([[4.0, 0.0, 0.0], [0.2, 0.1, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 1.0]])
STRONG = torch.tensor([[1.0, 0.5, 0.0], [0.0, 1.0, 0.0], [2.0, 0.0, 1.0], [0.5, 0.5, 0.5]])
NOBODYS = torch.full((4,), -1)


def algorithm(name: str, **parameters: Any) -> Algorithm:
    found, config = find_algorithm(name, parameters)
    return found(Given(), config, GivenNetworks(lambda _: Given()))


def batch(known: Tensor = NOBODYS) -> Batch:
    labeled = {"image": torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 2.0]]), "label": torch.tensor([0, 1])}
    return {"labeled": labeled, "unlabeled": {"image_weak": WEAK, "image": STRONG, "label": known}}


def labeled_loss() -> float:
    return (
        -(math.log(softmax(torch.tensor([1.0, 0.0, 0.0]))[0]) + math.log(softmax(torch.tensor([0.0, 0.0, 2.0]))[1])) / 2
    )


@pytest.mark.parametrize("threshold", [0.0, 0.8, 0.95])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("known", [[-1, -1, -1, -1], [-1, 2, -1, 0]])
def test_udas_loss(threshold: float, temperature: float, known: list[int]) -> None:
    total, counted = 0.0, 0
    for weak, strong, label in zip(WEAK, STRONG, known, strict=True):
        if label < 0 and max(softmax(weak)) < threshold:
            continue
        target = softmax(weak, temperature) if label < 0 else [float(place == label) for place in range(3)]
        total -= sum(p * math.log(q) for p, q in zip(target, softmax(strong), strict=True))
        counted += 1
    loss, share = consistency_loss(WEAK, STRONG, torch.tensor(known), temperature, threshold)
    assert (loss.item(), share.item()) == pytest.approx((total / 4, counted / 4))
    uda = algorithm("uda", threshold=threshold, temperature=temperature, factor=2.5)
    found = uda.loss(batch(torch.tensor(known)), 0, Runtime())
    assert found["loss"].item() == pytest.approx(labeled_loss() + 2.5 * total / 4, rel=1e-5)


def test_udas_targets_get_no_gradient() -> None:
    weak = WEAK.clone().requires_grad_()
    strong = STRONG.clone().requires_grad_()
    consistency_loss(weak, strong, NOBODYS, 0.5, 0.0)[0].backward()
    assert weak.grad is None
    assert strong.grad is not None


def test_uda_leaves_out_labeled_images_that_it_is_sure_of() -> None:
    logits = torch.tensor([[5.0, 0.0, 0.0], [0.0, 0.0, 2.0]])
    labels = torch.tensor([0, 1])
    expected = -math.log(softmax(logits[1])[1])
    assert annealed_cross_entropy(logits, labels, 0.9, 0.0, Runtime()).item() == pytest.approx(expected, rel=1e-5)
    assert annealed_cross_entropy(logits[:1], labels[:1], 0.9, 0.0, Runtime()) == 0
    both = (expected - math.log(softmax(logits[0])[0])) / 2
    assert annealed_cross_entropy(logits, labels, 1.0, 0.0, Runtime()).item() == pytest.approx(both, rel=1e-5)


def test_processes_that_leave_out_different_numbers_make_the_whole_batchs_step() -> None:
    logits = torch.randn(12, 3, generator=torch.Generator().manual_seed(0)) * 3
    labels = torch.arange(12) % 3
    whole = logits.clone().requires_grad_()
    annealed_cross_entropy(whole, labels, 0.6, 0.1, Runtime()).backward()
    parts = [
        logits[:4].clone().requires_grad_(),
        logits[4:8].clone().requires_grad_(),
        logits[8:].clone().requires_grad_(),
    ]
    counts: list[torch.Tensor] = []
    for _ in range(2):  # the first time to learn what each leaves out
        mean = torch.stack(counts).mean() if counts else torch.tensor(1.0)
        for number, part in enumerate(parts):

            def over_processes(values: Sequence[torch.Tensor], mean: torch.Tensor = mean) -> list[torch.Tensor]:
                counts.extend(values)
                return [mean]

            part.grad = None
            annealed_cross_entropy(
                part, labels[4 * number : 4 * number + 4], 0.6, 0.1, Runtime(means=over_processes)
            ).backward()
    assert len({int(count) for count in counts}) > 1
    found = torch.cat([part.grad for part in parts if part.grad is not None]) / len(parts)
    torch.testing.assert_close(found, whole.grad)


def test_udas_three_schedules_of_annealing() -> None:
    """α (1 − 1/K) + 1/K of a step, with the three α of the paper's training signal annealing."""
    steps, num_classes = 200, 10
    for step in (0, 50, 100, 199):
        share = step / steps
        alphas = {"linear": share, "log": 1 - math.exp(-share * 5), "exp": math.exp((share - 1) * 5)}
        for schedule, alpha in alphas.items():
            expected = alpha * 0.9 + 0.1
            assert annealed_bound(step, steps, num_classes, schedule) == pytest.approx(expected, rel=1e-12)
    assert annealed_bound(100, steps, 10, "exp") < annealed_bound(100, steps, 10, "linear")
    assert annealed_bound(100, steps, 10, "linear") < annealed_bound(100, steps, 10, "log")
    assert annealed_bound(200, steps, 10, "exp") == annealed_bound(3, 0, 10, "none") == 1


def test_annealing_leaves_labels_out_early_and_none_later() -> None:
    uda = algorithm("uda", annealing="linear", annealing_steps=10, factor=0)
    first, last = (uda.loss(batch(), step, Runtime())["loss"].item() for step in (0, 10))
    assert first == pytest.approx(-math.log(softmax(torch.tensor([0.0, 0.0, 2.0]))[1]), rel=1e-5), (
        "the mistaken one alone"
    )
    assert last == pytest.approx(labeled_loss(), rel=1e-5)


def test_meta_pseudo_labels_teacher_leaves_out_what_it_is_sure_of() -> None:
    found, config = find_algorithm("meta_pseudo_labels", {"labeled_confidence": 0.4, "teacher_loss": "supervised"})
    method = found(Given(), config, GivenNetworks(lambda _: Given()))
    whole = batch()
    whole["labeled"]["uniform"] = torch.zeros(2)
    _, losses = method.teacher_step(whole, 0, Runtime())  # type: ignore[operator]
    expected = -math.log(softmax(torch.tensor([0.0, 0.0, 2.0]))[1])
    assert losses["teacher_labeled_loss"].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("known", [[-1, -1, -1, -1], [-1, 2, -1, 0]])
def test_fixmatchs_loss(known: list[int]) -> None:
    total = 0.0
    for weak, strong, label in zip(WEAK, STRONG, known, strict=True):
        own = softmax(weak)
        if label >= 0 or max(own) >= 0.9:
            total -= math.log(softmax(strong)[label if label >= 0 else own.index(max(own))])
    found = algorithm("fixmatch", threshold=0.9, factor=0.5).loss(batch(torch.tensor(known)), 0, Runtime())
    assert found["loss"].item() == pytest.approx(labeled_loss() + 0.5 * total / 4, rel=1e-5)


@pytest.mark.parametrize(("step", "factor"), [(0, 0.0), (10, 0.0), (15, 1.5), (20, 3.0), (99, 3.0)])
def test_lees_loss_and_its_ramp(step: int, factor: float) -> None:
    total = 0.0
    for strong in STRONG:
        own = softmax(strong)
        if max(own) >= 0.5:
            total -= math.log(max(own))
    found = algorithm("pseudo_label", threshold=0.5, factor=3, ramp_start=10, ramp_end=20).loss(
        batch(), step, Runtime()
    )
    assert found["loss"].item() == pytest.approx(labeled_loss() + factor * total / 4, rel=1e-5)


def test_mean_teachers_loss() -> None:
    method = algorithm("mean_teacher", factor=10, ramp_steps=4)
    total = 0.0
    for weak, strong in zip(WEAK, STRONG, strict=True):
        total += sum((p - q) ** 2 for p, q in zip(softmax(strong), softmax(2 * weak), strict=True))
    found = method.loss(batch(), 2, Runtime(averaged_student=lambda images: 2 * images))
    assert found["loss"].item() == pytest.approx(labeled_loss() + 10 * math.exp(-1.25) * total / 12, rel=1e-5)
    assert [sigmoid_ramp(step, 4) for step in (4, 9)] == [1, 1]
    assert squared_difference(WEAK, WEAK) == 0


def test_the_mean_teacher_is_the_average_that_is_exported() -> None:
    from tests.algorithms.tiny import new_loop, random_batch

    loop = new_loop("mean_teacher")
    batch = random_batch(loop.algorithm, 0)
    loop.algorithm.train()
    for _ in range(3):
        loop.one_step(batch)
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(loop.runtime.average(images), loop.evaluated_model()(images))
    assert not loop.runtime.average(images).requires_grad
    assert not torch.equal(loop.runtime.average(images), loop.algorithm.student.eval()(images))


def test_confident_labels() -> None:
    labels, mask = confident_labels(WEAK, 0.9, torch.tensor([-1, 1, -1, -1]))
    assert labels.tolist() == [0, 1, 1, 2]
    assert mask.tolist() == [True, True, True, False]


def test_ramp() -> None:
    assert [ramp(step, 2, 4) for step in range(6)] == [0, 0, 0, 0.5, 1, 1]
    assert ramp(0, 0, 0) == 1
    assert [ramp(step, 10, 10) for step in (0, 9, 10)] == [0, 0, 1]


def test_mixups_loss_is_that_of_both_images() -> None:
    images, uniforms = torch.rand(3, 3, 2, 2), torch.tensor([1.0, 0.25, 0.0])
    mixed = mixup(images, uniforms)
    torch.testing.assert_close(mixed[0], images[0])
    torch.testing.assert_close(mixed[1], 0.25 * images[1] + 0.75 * images[0])
    torch.testing.assert_close(mixed[2], images[1])
    logits, labels = torch.randn(3, 4), torch.tensor([0, 3, 2])
    each = [functional.cross_entropy(logits[i], labels[i]) for i in range(3)]
    crossed = [functional.cross_entropy(logits[i], labels[i - 1]) for i in range(3)]
    expected = sum(uniforms[i] * each[i] + (1 - uniforms[i]) * crossed[i] for i in range(3)) / 3
    torch.testing.assert_close(mixup_loss(logits, labels, uniforms, 0.0), expected)
    torch.testing.assert_close(
        mixup_loss(logits, labels, torch.ones(3), 0.1), functional.cross_entropy(logits, labels, label_smoothing=0.1)
    )


def cross_entropy(row: Tensor, label: int, smoothing: float) -> float:
    probs = softmax(row)
    return -sum(((place == label) * (1 - smoothing) + smoothing / 3) * math.log(p) for place, p in enumerate(probs))


@pytest.mark.parametrize("teacher_loss", ["uda", "pseudo_label", "supervised"])
@pytest.mark.parametrize("labels_from", ["image", "image_weak"])
@pytest.mark.parametrize("mixed", [False, True])
def test_meta_pseudo_labels_teacher(teacher_loss: str, labels_from: str, mixed: bool) -> None:
    found, config = find_algorithm(
        "meta_pseudo_labels",
        {
            "teacher_loss": teacher_loss, "labels_from": labels_from, "teacher_mixup": mixed, "label_smoothing": 0.1,
            "unlabeled_factor": 3, "unlabeled_ramp_steps": 4, "temperature": 0.5, "threshold": 0.6,
        },
    )  # fmt: skip
    method = found(Given(), config, GivenNetworks(lambda _: Given()))
    images = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 2.0]])
    labels, uniforms = [0, 1], [0.3, 0.8]
    labeled = {"image": images[:, :, None, None], "label": torch.tensor(labels), "uniform": torch.tensor(uniforms)}
    unlabeled = {"image_weak": WEAK[:, :, None, None], "image": STRONG[:, :, None, None], "label": NOBODYS}
    prediction, losses = method.teacher_step({"labeled": labeled, "unlabeled": unlabeled}, 2, Runtime())  # type: ignore[operator]
    torch.testing.assert_close(prediction, STRONG if labels_from == "image" else WEAK)
    supervised = 0.0
    for place, uniform in enumerate(uniforms):
        uniform = uniform if mixed else 1.0
        row = uniform * images[place] + (1 - uniform) * images[place - 1]
        supervised += uniform * cross_entropy(row, labels[place], 0.1) / 2
        supervised += (1 - uniform) * cross_entropy(row, labels[place - 1], 0.1) / 2
    own = 0.0
    for weak, strong in zip(WEAK, STRONG, strict=True):
        if teacher_loss == "uda" and max(softmax(weak)) >= 0.6:
            own -= sum(p * math.log(q) for p, q in zip(softmax(weak, 0.5), softmax(strong), strict=True)) / 4
        if teacher_loss == "pseudo_label" and max(softmax(strong)) >= 0.6:
            own -= math.log(max(softmax(strong))) / 4
    assert losses["teacher_labeled_loss"].item() == pytest.approx(supervised, rel=1e-5)
    assert losses["teacher_loss"].item() == pytest.approx(supervised + 3 * 0.5 * own, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("uda", {"annealing": "log"}, "`annealing` and `annealing_steps` belong together"),
        ("pseudo_label", {"ramp_start": 10}, "`ramp_end` comes before `ramp_start`"),
        ("reduced_meta_pseudo_labels", {"residual": False}, "give `identity_factor`"),
        (
            "meta_pseudo_labels",
            {"feedback": "exact", "labels": "soft", "feedback_sign": "authors_code"},
            "no other sign",
        ),
        (
            "meta_pseudo_labels",
            {"feedback": "exact", "labels": "soft", "feedback_at": "own_step"},
            "derivative at `feedback_at: plain_step`",
        ),
    ],
)
def test_parameters_that_contradict_each_other(name: str, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_algorithm(name, parameters)
