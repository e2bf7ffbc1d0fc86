"""Meta Pseudo Labels' two-moons experiment."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from selftrain.api.shown import Svg

if TYPE_CHECKING:
    import polars as pl

    from selftrain.studies.two_moons import MoonsConfig
    from selftrain.studies.two_moons_table import Outcome


@dataclass(frozen=True)
class Moons:
    """What came out, by the names of the settings."""

    settings: "Mapping[str, MoonsConfig]"
    outcomes: "Mapping[str, Outcome]"

    def table(self) -> "pl.DataFrame":
        """Success rates with their 95% intervals, a row a setting and method."""
        from selftrain.studies.two_moons_table import table

        return table(list(self.outcomes.values()))

    def figure(self, setting: str, draw: int = 0) -> Svg:
        """The paper's Figure 2 for one draw of a setting: regions, points, and the labeled ones as stars."""
        from selftrain.plumbing.errors import UserError
        from selftrain.plumbing.sections import did_you_mean
        from selftrain.studies.two_moons import Draws
        from selftrain.studies.two_moons_table import figure_svg

        if setting not in self.outcomes:
            raise UserError(f"there is no setting '{setting}'; {did_you_mean(setting, list(self.outcomes))}")
        shown = min(len(maps) for maps in self.outcomes[setting].maps.values())
        if not 0 <= draw < shown:
            raise UserError(f"draw {draw} has no figure; the first {shown} have one, and `shown` asks for more")
        return Svg(figure_svg(self.outcomes[setting], Draws(self.settings[setting], draw + 1), draw))


def two_moons(draws: int = 20, steps: int | None = None, seed: int = 0, shown: int = 3) -> Moons:
    """Run every setting over random draws; ``steps`` None is each setting's own; ``shown`` draws have figures.

    Raises UserError for fewer than two draws, and for no step.
    """
    from selftrain.plumbing.errors import UserError
    from selftrain.studies.two_moons import SETTINGS
    from selftrain.studies.two_moons_table import run_setting

    if draws < 2:
        raise UserError(f"draws: two or more, not {draws}")
    if steps is not None and steps < 1:
        raise UserError(f"steps: one or more, not {steps}")
    shown = min(shown, draws)
    settings = {name: each.model_copy(update={"steps": steps or each.steps}) for name, each in SETTINGS.items()}
    return Moons(settings, {name: run_setting(name, each, draws, seed, shown) for name, each in settings.items()})
