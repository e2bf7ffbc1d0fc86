"""The section of params.yaml that filters and balances pseudo-labels."""

from typing import Annotated, Any, Literal

from pydantic import Field

from selftrain.plumbing.errors import UserError
from selftrain.plumbing.sections import MODULE_NAME, Section, parse_overlaid


class SelectConfig(Section):
    """``select``: the rounds' defaults; each round overlays its own ``select``. The paper's: 0.3 and 130,000."""

    policy: str = Field(default="threshold", pattern=MODULE_NAME)
    """A file of ``selection/policies``: which pseudo-labels are good enough."""
    threshold: float = Field(default=0.3, ge=0, lt=1)
    """Images are kept when the teacher's confidence is above it."""
    precision: float = Field(default=0.95, gt=0, lt=1)
    """Of the policy ``precision``: the share of a class's labels that has to be right, as far as can be expected."""
    neighbours: int = Field(default=10, ge=1)
    """Of the policy ``neighbours``: how many are looked at. At least half of them must have the label."""
    gate: float | None = Field(default=None, gt=0, lt=1)
    """Leave out as ``out_of_domain`` what the first teacher finds stranger than all but this share of the validation
    images, 0.05 say, by its embeddings and its confidence; null: nothing. The rounds grow sure of strangers, the first
    teacher is not. It needs ``predict.embeddings``."""
    prior: Literal["uniform", "labeled"] | None = None
    """Shift all predictions so that their mean over the pool is this share of each class, before the policy looks:
    ``uniform``, or that of the labeled images to the power ``prior_exponent``; null: as the teacher predicts."""
    prior_exponent: float = Field(default=1.0, ge=0, le=1)
    """Below 1 it favours rare classes."""
    tail_exponent: float = Field(default=0.0, ge=0, le=1)
    """CReST's α: of the class with the most labeled images only its surest candidates pass, (fewest / most)^α of them,
    of the one with the fewest all, between them by rank. 0: of every class all."""
    weight: Literal["one", "confidence"] = "one"
    """What a kept image weighs in the loss, beside its copies."""
    per_class: Annotated[int, Field(ge=1)] | Literal["auto", "all"] = "auto"
    """Images a class in the balanced epoch, K; ``auto``: the median of the classes' kept images; ``all``: not balanced,
    every kept image once."""
    max_copies: int = Field(default=10, ge=1)
    """Most times that one image is repeated to fill up its class."""
    share: float = Field(default=1.0, gt=0, le=1)
    """Share of the pool that is used at all, drawn by the seed: what would less data have given?"""
    repeats: Literal["drop", "keep"] = "drop"
    """``drop`` leaks of held-out images and duplicates; ``keep`` treats them like any other image."""

    @property
    def modules(self) -> list[str]:
        """The modules that it finds by name."""
        return [f"selection.policies.{self.policy}"]


def select_config(params: dict[str, Any], round_: str, params_path: str) -> SelectConfig:
    """The round's selection parameters: ``select``, overlaid with the round's own ``select``."""
    rounds = params.get("rounds") or {}
    if round_ not in rounds:
        raise UserError(f"{params_path}: rounds: there is no round '{round_}'; there are: {', '.join(rounds)}")
    overlay = (rounds[round_] or {}).get("select")
    where = f"{params_path}: rounds.{round_}.select"
    return parse_overlaid(params.get("select"), overlay, SelectConfig, f"{params_path}: select", where)
