"""Balance: how many images of each class an epoch holds, and how often each is repeated.

Noisy Student (Xie et al. 2020, arXiv 1911.04252), Section 3.1.
"""

import math
import statistics
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ClassPlan:
    """How one class is brought to its quota."""

    label: int
    candidates: int
    """Images that passed the filter."""
    kept: int
    copies: int
    """Copies of every kept and every corrected image."""
    extra: int
    """Of them, those that get one copy more."""


def plan_classes(
    candidates: dict[int, int],
    corrected: dict[int, int],
    per_class: int | str,
    max_copies: int,
    shares: NDArray[np.float64] | None = None,
) -> tuple[int | None, list[ClassPlan]]:
    """From the images that passed the filter, by class, to the quota K (None: no balancing) and each class's plan.

    ``corrected`` are those that people labeled: they come first, and all of them, even where they are more than K.
    ``shares`` (C,) says how much of its candidates each class may use; None: all.
    """
    usable = {
        label: count if shares is None else math.ceil(round(shares[label] * count, 6))
        for label, count in candidates.items()
    }
    images = {label: usable.get(label, 0) + corrected.get(label, 0) for label in {*candidates, *corrected}}
    if per_class == "all":
        return None, [
            ClassPlan(label, candidates.get(label, 0), usable.get(label, 0), 1, 0) for label in sorted(images)
        ]
    present = [count for count in images.values() if count > 0]
    quota = math.ceil(statistics.median(present)) if per_class == "auto" else int(per_class)
    plans = []
    for label in sorted(images):
        count, by_hand = candidates.get(label, 0), corrected.get(label, 0)
        kept = min(usable.get(label, 0), max(0, quota - by_hand))
        unique = kept + by_hand
        copies, extra = divmod(max(unique, min(quota, unique * max_copies)), unique) if unique else (0, 0)
        plans.append(ClassPlan(label, count, kept, copies, extra))
    return quota, plans


def tail_shares(labeled: NDArray[np.int64], exponent: float) -> NDArray[np.float64]:
    """CReST's share of its candidates that each class may use, (C,), from its labeled images (C,).

    Wei et al. 2021 (arXiv 2102.09559, Equation 1): μ_l = (N_{L+1−l} / N_1)^α, classes sorted by labeled images.
    """
    order = np.argsort(-labeled, kind="stable")
    sizes = np.maximum(labeled[order], 1) / max(int(labeled.max()), 1)
    shares = np.empty(len(labeled))
    shares[order] = sizes[::-1] ** exponent
    return shares
