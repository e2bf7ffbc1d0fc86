"""The commands that read results: tables, servers, corrections, differences, lineage, models in other formats."""

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from selftrain.cli.app import Out, Pipeline, app
from selftrain.plumbing.locks import sole_writer
from selftrain.tables.corpus import classes_of

Model = Annotated[Path | None, typer.Option(help="A model folder; by default the best of ./params.yaml's pipeline.")]


@app.command()
def summary(pipeline: Pipeline = None) -> None:
    """Print the table of runs and where to look next."""
    from selftrain.project import Project
    from selftrain.report.summary import print_summary

    project = Project.open(pipeline=pipeline)
    print_summary(project.evaluations, project.runs, project.report)


@app.command()
def mlflow(pipeline: Pipeline = None, port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 5000) -> None:
    """Serve MLflow, and print where the runs are compared."""
    from selftrain.project import Project
    from selftrain.report.mlflow_page import serve_mlflow

    project = Project.open(pipeline=pipeline)
    serve_mlflow(project.evaluations, project.runs, port)


@app.command()
def browse(
    pipeline: Pipeline = None,
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 5151,
    build_only: Annotated[
        bool, typer.Option("--build-only", help="Build the dataset and do not open the App.")
    ] = False,
    public: Annotated[bool, typer.Option("--public", help="Serve other machines too, with a token.")] = False,
) -> None:
    """Open FiftyOne with the unlabeled pool: predictions, decisions, saved views."""
    from selftrain.inspection.app import browse as run_browse
    from selftrain.project import Project

    run_browse(Project.open(pipeline=pipeline), port, build_only, public)


@app.command()
def export(out: Out, model: Model = None) -> None:
    """Write a model as ONNX and as a torch.export program, and compare both with the original."""
    from selftrain.project import Project
    from selftrain.release.formats import export_formats

    folder = model or Project.open().best
    for name, difference in export_formats(folder, out).items():
        print(f"{out / name}: as {folder} to {difference:.1e} in log-probabilities")


@app.command()
def register(
    name: Annotated[str, typer.Argument(help="Name in MLflow's registry.")],
    model: Model = None,
) -> None:
    """Register a model in MLflow under the alias `champion`, to be served by `mlflow models serve`."""
    from selftrain.plumbing.tracking import TRACKING_URI, tracking_uri
    from selftrain.project import Project
    from selftrain.release.register import register as run_register

    folder = model or Project.open().best
    uri = run_register(folder, name)
    # An address that a person has set may have a password, and is in the environment already.
    server = "" if os.environ.get(TRACKING_URI) else f"{TRACKING_URI}={shlex.quote(tracking_uri())} "
    print(f"{uri}: {folder}")
    print(f"serve it: {server}mlflow models serve -m {shlex.quote(uri)} --env-manager local -p 5001")
    print(
        """ask it:   echo '{"dataframe_records": [{"image": "'$(base64 -w0 image.jpg)'"}]}' | """
        "curl -s localhost:5001/invocations -H 'Content-Type: application/json' -d @-"
    )


@app.command()
def ask(
    budget: Annotated[int, typer.Option(min=1, help="Images to label.")] = 20,
    run: Annotated[str | None, typer.Option(help="Whose doubts; by default the first teacher's.")] = None,
    pipeline: Pipeline = None,
) -> None:
    """Say which images of the pool a person should label next; FiftyOne's view “pool: label these first” shows them."""
    from selftrain.project import Project
    from selftrain.selection.ask import ask as run_ask

    project = Project.open(pipeline=pipeline)
    asker, asked = run_ask(project, budget, run)
    classes = classes_of(project.corpus)
    for row in asked.iter_rows(named=True):
        guess = f"{asker} guesses {classes[row['label']]}, {row['confidence']:.0%}"
        print(f"{row['rank']:>3}  {row['source']}  ({guess})")
    of_pipeline = "" if pipeline is None else f" --pipeline {pipeline}"
    print(f"label them: selftrain browse{of_pipeline}, view “pool: label these first”, Correct the label; then")
    commands = (f"selftrain corrections {name}{of_pipeline}" for name in ("export", "to-labeled"))
    print(f"            {' && '.join(commands)} && dvc repro")


corrections = typer.Typer(help="Corrections between the FiftyOne App and corrections.parquet.", no_args_is_help=True)
app.add_typer(corrections, name="corrections")


@corrections.command("export")
def export_(
    pipeline: Pipeline = None,
    who: Annotated[str | None, typer.Option(help="Who said it; by default git's user.")] = None,
) -> None:
    """Write what people tagged `reject` or labeled `corrected` in the App; then `dvc repro` applies it."""
    from selftrain.inspection.app import open_dataset
    from selftrain.inspection.corrections import export_corrections
    from selftrain.project import Project

    project = Project.open(pipeline=pipeline)
    with sole_writer(project.corrections):
        print(export_corrections(open_dataset(project), project.corrections, project.corpus, who))


@corrections.command("import")
def import_(pipeline: Pipeline = None) -> None:
    """Show the file's corrections in the App."""
    from selftrain.inspection.app import open_dataset
    from selftrain.inspection.corrections import import_corrections
    from selftrain.project import Project

    project = Project.open(pipeline=pipeline)
    with sole_writer(project.corrections):
        print(import_corrections(open_dataset(project), project.corrections, project.corpus, prefer="file"))


@corrections.command("to-labeled")
def to_labeled(pipeline: Pipeline = None) -> None:
    """Write corrected images into the labeled folder, so that teachers learn them too; then `dvc repro`."""
    from selftrain.corpus.answers import ANSWERS, move_to_labeled
    from selftrain.params.ingest import IngestConfig
    from selftrain.project import Project

    project = Project.open(pipeline=pipeline)
    config = project.section("ingest", IngestConfig)
    with sole_writer(project.corrections):
        written = move_to_labeled(project.corrections, project.corpus, config)
    for path in written:
        print(path)
    print(f"{len(written)} answers are labeled images now; {config.root}/{ANSWERS} says where from")


@corrections.command("merge")
def merge_(
    other: Annotated[Path, typer.Argument(help="Another corrections.parquet, such as a colleague's.")],
    pipeline: Pipeline = None,
) -> None:
    """Add another file's corrections; where git cannot merge two files, this does."""
    from selftrain.project import Project
    from selftrain.tables.corrections import merge_files

    path = Project.open(pipeline=pipeline).corrections
    with sole_writer(path):
        print(f"{path}: {merge_files(path, other)} corrections of {other} added")


@corrections.command("prune")
def prune_(pipeline: Pipeline = None) -> None:
    """Remove corrections that no longer fit the corpus, and tell which."""
    from selftrain.project import Project
    from selftrain.tables.corrections import prune

    project = Project.open(pipeline=pipeline)
    classes = classes_of(project.corpus)
    with sole_writer(project.corrections):
        stale = prune(project.corrections, classes, project.corpus / "unlabeled")
    for key, reason in stale.items():
        print(f"key {key} removed: {reason}")
    print(f"{project.corrections}: {len(stale)} stale rows removed")


@app.command()
def diff(
    run_a: Annotated[str, typer.Argument(help="A round.")],
    run_b: Annotated[str | None, typer.Argument(help="Another; by default the same, which takes --rev.")] = None,
    rev: Annotated[str | None, typer.Option(help="Git revision to take RUN_A's selection from.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write it as JSON.")] = None,
    html_file: Annotated[Path | None, typer.Option("--html", help="Write it as a page, with pictures.")] = None,
    examples: Annotated[int, typer.Option(min=0, help="Images named for each change.")] = 24,
    pipeline: Pipeline = None,
) -> None:
    """Print which pseudo-labels entered, left, flipped or changed their copies between two rounds or revisions."""
    from selftrain.history.compare import compare, print_diff, write_diff_json
    from selftrain.plumbing.errors import UserError
    from selftrain.project import Project
    from selftrain.report.diff_page import write_diff_page

    if run_b is None and rev is None:
        raise UserError(f"{run_a} is compared with nothing: name a second round, or a revision by --rev")
    project = Project.open(pipeline=pipeline)
    compared = compare(project.selections, run_a, run_b or run_a, rev, examples)
    print_diff(compared)
    if json_file is not None:
        write_diff_json(compared, json_file)
    if html_file is not None:
        write_diff_page(compared, project.corpus / "unlabeled", html_file)


@app.command()
def lineage(
    model: Annotated[Path, typer.Argument(help="A model folder, such as models/noisy_student/student3.")],
    deep: Annotated[bool, typer.Option("--deep", help="Read every image and compare its hash.")] = False,
) -> None:
    """Print what a model was made from, back to the shards; exit 1 if a link is missing or changed."""
    from selftrain.history.lineage import trace
    from selftrain.history.print_lineage import print_lineage

    if not print_lineage(trace(model, deep)):
        raise typer.Exit(1)
