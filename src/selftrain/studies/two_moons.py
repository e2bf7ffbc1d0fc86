"""Two moons: Meta Pseudo Labels' Section 3.1, over many draws at once.

2,000 points, 6 of them labeled; two hidden layers of 8 sigmoid units; plain SGD. The paper says that Meta Pseudo
Labels finds the right classifier much more often than supervised training and Pseudo-Label do. It does not say how
often, how many steps it took, or which batches. The results are in docs/two-moons.md.

Every draw has its points, labels, networks and batches; all draws take a step together (``torch.func.vmap``). The
feedback is that of ``learning/feedback.py``, function by function.
"""

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from selftrain.plumbing.sections import Section

if TYPE_CHECKING:
    from torch import Tensor

    Weights = dict[str, Tensor]

HIDDEN = 8
LABELED = 3
"""Labeled points a moon."""


class MoonsConfig(Section):
    """What the experiment is run with. The defaults are the paper's, where it gives them."""

    points: int = Field(default=2000, ge=12)
    moon_noise: float = Field(default=0.1, ge=0)
    """Standard deviation around the moons; the paper does not say."""
    learning_rate: float = Field(default=0.1, gt=0)
    initial_weights: float = Field(default=0.1, gt=0)
    """They are uniform between minus and plus this."""
    steps: int = Field(default=10000, ge=1)
    """Of every network; the paper does not say."""
    batch_size: int = Field(default=128, ge=1)
    """Unlabeled points a step; all 6 labeled ones are in each."""
    feedback: Literal["cosine", "dot_product"] = "cosine"
    feedback_factor: float = Field(default=1.0, ge=0)
    uda_factor: float = Field(default=0.0, ge=0)
    """Of a consistency loss of the teacher, as in Algorithm 1, on points moved by ``uda_noise``."""
    uda_noise: float = Field(default=0.2, ge=0)
    uda_temperature: float = Field(default=0.3, gt=0)


SETTINGS: dict[str, MoonsConfig] = {
    "as the paper states it": MoonsConfig(),
    "larger initial weights and rate": MoonsConfig(initial_weights=3, learning_rate=1, steps=5000),
    "the same, with UDA": MoonsConfig(initial_weights=3, learning_rate=1, steps=5000, uda_factor=3),
}


class Draws:
    """The points (D, N, 2), their moons (D, N), and which are labeled (D, 6), of D draws."""

    def __init__(self, setting: MoonsConfig, draws: int) -> None:
        from sklearn.datasets import make_moons

        made = [make_moons(setting.points, noise=setting.moon_noise, random_state=draw) for draw in range(draws)]
        self.points = np.array([points for points, _ in made], dtype=np.float32)
        self.moons = np.array([moons for _, moons in made])
        chosen = [
            np.random.default_rng(draw).choice(np.flatnonzero(moons == moon), LABELED, replace=False)
            for draw, moons in enumerate(self.moons)
            for moon in (0, 1)
        ]
        self.labeled = np.array(chosen).reshape(draws, 2 * LABELED)


def forward(weights: "Weights", points: "Tensor") -> "Tensor":
    """One draw's network: (B, 2) → logits (B, 2)."""
    import torch

    for layer in ("1", "2"):
        points = torch.sigmoid(points @ weights[f"weight{layer}"] + weights[f"bias{layer}"])
    return points @ weights["weight3"] + weights["bias3"]


def teach(
    teacher: "Weights",
    student: "Weights",
    baseline: "Tensor",
    batch: "dict[str, Tensor]",
    setting: MoonsConfig,
) -> "tuple[Weights, Weights, Tensor]":
    """One step of Meta Pseudo Labels for one draw; the new teacher, student and moving average of h.

    ``batch``: ``unlabeled`` (B, 2), ``moved`` (B, 2), ``uniforms`` (B,), ``labeled`` (6, 2), ``labels`` (6,).
    """
    from torch.func import grad
    from torch.nn.functional import cross_entropy

    from selftrain.learning.gradients import cosine, dot_product, sampled_labels

    rate, unlabeled = setting.learning_rate, batch["unlabeled"]
    labels = sampled_labels(forward(teacher, unlabeled), batch["uniforms"])
    slopes = grad(lambda weights: cross_entropy(forward(weights, unlabeled), labels))(student)
    stepped = descended(student, slopes, rate)
    labeled = grad(lambda weights: cross_entropy(forward(weights, batch["labeled"]), batch["labels"]))(stepped)
    ours, theirs = tuple(labeled.values()), tuple(slopes.values())
    feedback = cosine(ours, theirs) if setting.feedback == "cosine" else rate * dot_product(ours, theirs)
    advantage = setting.feedback_factor * (feedback - baseline)

    def loss(weights: "Weights") -> "Tensor":
        return teacher_loss(weights, batch, setting) + advantage * cross_entropy(forward(weights, unlabeled), labels)

    return descended(teacher, grad(loss)(teacher), rate), stepped, baseline + 0.01 * (feedback - baseline)


def teacher_loss(weights: "Weights", batch: "dict[str, Tensor]", setting: MoonsConfig) -> "Tensor":
    """Cross-entropy on the labeled points and, if it is asked for, UDA's loss."""
    from torch.nn.functional import cross_entropy

    from selftrain.learning.losses import soft_cross_entropy, with_temperature

    loss = cross_entropy(forward(weights, batch["labeled"]), batch["labels"])
    if setting.uda_factor:
        targets = with_temperature(forward(weights, batch["unlabeled"]).detach(), setting.uda_temperature)
        loss = loss + setting.uda_factor * soft_cross_entropy(forward(weights, batch["moved"]), targets).mean()
    return loss


def descended(weights: "Weights", slopes: "Weights", learning_rate: float) -> "Weights":
    """A plain SGD step."""
    return {name: value - learning_rate * slopes[name] for name, value in weights.items()}


def train(setting: MoonsConfig, draws: Draws, seed: int) -> dict[str, Any]:
    """The weights of every method, by name, each a network a draw.

    ``supervised`` has the 6 labels (and UDA's loss, where the setting has it); ``pseudo_label`` learns what it says
    of the pool; ``meta_pseudo_labels`` is the student, ``teacher`` its teacher; ``all_labels`` knows
    every point's moon, and tells what these networks and steps can reach at all.
    """
    import torch
    from torch.func import grad, vmap
    from torch.nn.functional import cross_entropy

    generator = torch.Generator().manual_seed(seed)
    points = torch.from_numpy(draws.points)
    labeled = gathered(points, torch.from_numpy(draws.labeled))
    moons = torch.from_numpy(draws.moons)
    labels = moons.gather(1, torch.from_numpy(draws.labeled))
    count = len(points)

    def new_weights() -> "Weights":
        sizes = ((2, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, 2))
        shapes = {f"weight{place}": size for place, size in enumerate(sizes, 1)}
        shapes |= {f"bias{place}": (1, size[1]) for place, size in enumerate(sizes, 1)}
        uniform = {name: torch.rand(count, *shape, generator=generator) for name, shape in shapes.items()}
        return {name: setting.initial_weights * (2 * value - 1) for name, value in uniform.items()}

    def batch() -> "dict[str, Tensor]":
        rows = torch.randint(setting.points, (count, setting.batch_size), generator=generator)
        unlabeled = gathered(points, rows)
        moved = unlabeled + setting.uda_noise * torch.randn(unlabeled.shape, generator=generator)
        uniforms = torch.rand(rows.shape, generator=generator)
        drawn = {"rows": rows, "unlabeled": unlabeled, "moved": moved, "uniforms": uniforms}
        return drawn | {"labeled": labeled, "labels": labels}

    supervised, pseudo_label, teacher, student = (new_weights() for _ in range(4))
    baseline = torch.zeros(count)
    alone = vmap(grad(lambda weights, given: teacher_loss(weights, given, setting)))
    only_labeled = {"labeled": labeled, "labels": labels}
    for _ in range(setting.steps):
        given = batch() if setting.uda_factor else only_labeled
        supervised = descended(supervised, alone(supervised, given), setting.learning_rate)
    pseudo_labels = vmap(forward)(supervised, points).argmax(dim=2)
    taught = vmap(grad(lambda weights, given, target: cross_entropy(forward(weights, given), target)))

    def from_labels(weights: "Weights", each: "Tensor") -> "Weights":
        for _ in range(setting.steps):
            given = batch()
            slopes = taught(weights, given["unlabeled"], each.gather(1, given["rows"]))
            weights = descended(weights, slopes, setting.learning_rate)
        return weights

    pseudo_label = from_labels(pseudo_label, pseudo_labels)
    step = vmap(lambda one, other, average, given: teach(one, other, average, given, setting))
    for _ in range(setting.steps):
        teacher, student, baseline = step(teacher, student, baseline, batch())
    return {
        "supervised": supervised,
        "pseudo_label": pseudo_label,
        "meta_pseudo_labels": student,
        "teacher": teacher,
        "all_labels": from_labels(new_weights(), moons),
    }


def gathered(points: "Tensor", rows: "Tensor") -> "Tensor":
    """(D, N, 2) and (D, B) → each draw's own points, (D, B, 2)."""
    return points.gather(1, rows[..., None].expand(-1, -1, 2))


def decisions(weights: "Weights", points: NDArray[np.float32]) -> NDArray[np.int64]:
    """The moon that each draw's network puts each of its points (D, N, 2) into, (D, N)."""
    import torch
    from torch.func import vmap

    return np.asarray(vmap(forward)(weights, torch.from_numpy(points)).argmax(dim=2).numpy())


def accuracies(weights: "Weights", draws: Draws) -> NDArray[np.float64]:
    """Share of all points that each draw's network puts into their moon, (D,)."""
    return np.asarray((decisions(weights, draws.points) == draws.moons).mean(axis=1))
