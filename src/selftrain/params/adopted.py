"""The sections of params.yaml about models that are taken as they are: ``teachers``, ``ensembles``, ``pretrained``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from selftrain.params.runs import ADOPTED, all_runs
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.sections import Section, did_you_mean, parse_section


class AdoptedConfig(Section):
    """A run's entry in one of them."""

    models: list[str] = Field(min_length=1)
    """Timm model folders, such as runs', or names of pretrained weights in timm; of several, the mean of what they say
    is the run's prediction."""
    weights: list[Annotated[float, Field(gt=0)]] | None = None
    """Of each in the mean; null: all the same."""

    @model_validator(mode="after")
    def _a_weight_each(self) -> "AdoptedConfig":
        if self.weights is not None and len(self.weights) != len(self.models):
            raise ValueError("give as many `weights` as `models`")
        return self

    @property
    def all_weights(self) -> list[float]:
        """A weight for each model."""
        return self.weights or [1.0] * len(self.models)


def adopted_config(params: Mapping[str, Any], run: str, params_path: str) -> AdoptedConfig:
    """The entry of a run that is adopted. Raises UserError for one that is trained."""
    runs = all_runs(params, params_path)
    if runs.get(run) not in ADOPTED:
        known = [name for name, section in runs.items() if section in ADOPTED]
        raise UserError(f"{params_path}: '{run}' is not under {', '.join(ADOPTED)}; {did_you_mean(run, known)}")
    section = runs[run]
    config = parse_section(params[section][run], AdoptedConfig, f"{params_path}: {section}.{run}")
    # DVC's stages depend on just that many folders.
    wanted = 2 if section == "ensembles" else 1
    if len(config.models) != wanted:
        raise UserError(
            f"{params_path}: {section}.{run}.models: {wanted} of them, not {len(config.models)}"
            + ("; for three, average two first and name models/<pipeline>/<that run>" if len(config.models) > 2 else "")
        )
    if section == "pretrained" and ("/" in config.models[0] or Path(config.models[0]).exists()):
        raise UserError(f"{params_path}: {section}.{run}.models: names of timm's weights; folders are `teachers`")
    return config
