"""The command line's application, and the options that its commands share."""

import os
from pathlib import Path
from typing import Annotated

# OpenMP threads that spin while they wait make a busy two-core machine ten times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import typer

app = typer.Typer(
    help="Self-training for image classifiers, with the pseudo-label set as the product.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Pipeline = Annotated[str | None, typer.Option(help="A pipeline by its name; by default the one of ./params.yaml.")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run of the pipeline's params.yaml.")]
Out = Annotated[Path, typer.Option(help="Folder to write.")]
