"""The commands that begin something: a project for a user's images, a pipeline in a project."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from selftrain.cli.app import app


@app.command()
def init(
    project: Annotated[Path, typer.Argument(help="The project's folder, new or in a repository that is there.")],
    labeled: Annotated[Path, typer.Option(help="Folder with a folder of images for each class.")],
    pool: Annotated[Path, typer.Option(help="Folder of unlabeled images, flat or nested.")],
    validation: Annotated[Path | None, typer.Option(help="Like --labeled; by default a fifth is cut from it.")] = None,
    test: Annotated[Path | None, typer.Option(help="Like --labeled; by default a fifth is cut from it.")] = None,
    model: Annotated[str | None, typer.Option(help="A timm model; by default one that fits the images.")] = None,
) -> None:
    """Make a project for your own images: params.yaml, dvc.yaml, git and DVC. `dvc repro` does the rest."""
    from selftrain.start.init import init as run_init
    from selftrain.start.look import FEW

    seen = run_init(project, labeled, pool, validation, test, model)
    words = (
        f"{len(seen.classes)} classes, at least {seen.per_class} labeled images each, {seen.pool_images:,} unlabeled"
    )
    print(f"{project}: {words}, {seen.side} pixels on the shorter side of the middle one")
    if seen.held_out_per_class < FEW:
        missing = " and ".join(f"--{name}" for name in ("validation", "test") if getattr(seen, name) is None)
        print(
            f"note: {seen.held_out_per_class} images of the smallest class are cut for validation, or test; so few "
            f"tell little of what is better: label more, or give {missing}"
        )
    print(f"next: {'' if project == Path() else f'cd {shlex.quote(str(project))} && '}selftrain check && dvc repro")


@app.command()
def new(name: Annotated[str, typer.Argument(help="The new pipeline's name.")]) -> None:
    """Make another pipeline in this project, pipelines/NAME, from the parameters of ./params.yaml."""
    from selftrain.start.new import new_pipeline

    folder = new_pipeline(Path(), name)
    print(f"{folder}: change its params.yaml, then `dvc repro {folder}/dvc.yaml`")
