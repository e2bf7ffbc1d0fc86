"""The commands that answer questions of papers, each by many trainings."""

from pathlib import Path
from typing import Annotated

import typer

from selftrain.cli.app import app


@app.command()
def study(
    names: Annotated[list[str], typer.Argument(help="Names of studies in the pipelines' studies.yaml.")],
    show: Annotated[bool, typer.Option("--show", help="Only print what MLflow has of it.")] = False,
) -> None:
    """Run studies, each a grid of `dvc exp` experiments, and print their tables."""
    from selftrain.studies.results import print_study
    from selftrain.studies.run import run_study
    from selftrain.studies.study import load_study

    studies = {name: load_study(name) for name in names}
    for name, (wanted, pipeline) in studies.items():
        version = None if show else run_study(name, wanted, pipeline)
        print_study(name, wanted.arms, version=version)
        print(f"{wanted.question}\n{wanted.source}: {wanted.expected}")


@app.command()
def choose(
    out: Annotated[Path, typer.Option(help="Folder for `choosing.md`, its pictures and `.csv`.")] = Path("choosing"),
    reference: Annotated[str, typer.Option(help="Run that gains in accuracy are relative to.")] = "supervised",
) -> None:
    """Compare every algorithm from MLflow: accuracy, calibration, robustness, time. `make choosing` runs them."""
    from selftrain.studies.choosing import write_comparison

    print(write_comparison(out, reference))


@app.command()
def two_moons(
    draws: Annotated[int, typer.Option(help="Random draws of points, labels and networks.", min=2)] = 100,
    steps: Annotated[int | None, typer.Option(help="Of every network, instead of each setting's own.", min=1)] = None,
    setting: Annotated[str, typer.Option(help="Only settings with these words in their names.")] = "",
    seed: Annotated[int, typer.Option(help="Of networks and batches.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for the figures and `two_moons.csv`.")] = Path("two_moons"),
) -> None:
    """Run Meta Pseudo Labels' two-moons experiment: success rates, and its Figure 2. About four minutes on 2 cores."""
    from selftrain.studies.two_moons_table import run_all

    run_all(draws, steps, setting, seed, out)
