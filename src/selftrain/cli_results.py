"""The commands that read results: pages, tables, servers, studies. ``cli`` has the stages that make them."""

from pathlib import Path
from typing import Annotated, Any

import typer

from selftrain.cli import CORPUS, EVALUATION, PARAMS, Corpus, Evaluation, Out, Params, app

CORRECTIONS = Path("corrections.parquet")


def corpus_of(pipeline: str | None) -> Path:
    """A pipeline's corpus: its own if it has one, or else the main job's."""
    own = Path("data") / pipeline if pipeline else CORPUS
    return own if own.is_dir() else CORPUS


def params_of(pipeline: str | None) -> Path:
    """A pipeline's parameters; None is the main job."""
    return Path("pipelines") / pipeline / PARAMS if pipeline else PARAMS


def corrections_of(pipeline: str | None) -> Path:
    """The corrections of a pipeline's corpus."""
    own = Path("pipelines") / (pipeline or "") / CORRECTIONS
    return own if pipeline and own.exists() else CORRECTIONS


@app.command()
def robustness_figures(
    tables: Annotated[Path, typer.Option(help="Folder of the runs' robustness tables.")],
    out: Out,
    params: Params = PARAMS,
) -> None:
    """Write mCE, mFR, attack curves and the robustness page from the tables."""
    from selftrain.config import load_params, parse_section
    from selftrain.evaluation.robustness.config import RobustnessConfig
    from selftrain.report.robustness_page import write_robustness
    from selftrain.stage import sole_writer

    values = load_params(params)
    config = parse_section(values.get("robustness"), RobustnessConfig, f"{params}: robustness")
    with sole_writer(out):
        write_robustness(tables, values.get("runs"), config.reference, out)


@app.command()
def replication_tables(
    evaluation: Evaluation,
    tables: Annotated[Path, typer.Option(help="Folder of the runs' robustness tables.")],
    out: Out,
    params: Params = PARAMS,
) -> None:
    """Print the small-scale replication's Tables 2 and 3 for this data."""
    from selftrain.config import load_params
    from selftrain.report.replication import write_replication_tables
    from selftrain.stage import sole_writer
    from selftrain.training.config import all_runs

    names = all_runs(load_params(params), str(params))
    with sole_writer(out):
        write_replication_tables(evaluation, tables, names, out)


@app.command()
def report(
    evaluation: Evaluation,
    review: Annotated[Path, typer.Option(help="What `selftrain review` wrote.")],
    selections: Annotated[Path, typer.Option(help="Folder of the rounds' selections.")],
    out: Out,
    corpus: Corpus = CORPUS,
    params: Params = PARAMS,
) -> None:
    """Write the report, one self-contained page, and hand its figures to MLflow."""
    from selftrain.config import load_params
    from selftrain.report.build import Sources, build_report
    from selftrain.stage import sole_writer
    from selftrain.training.config import all_runs

    names = all_runs(load_params(params), str(params))
    with sole_writer(out):
        build_report(Sources(evaluation, corpus, selections, review), names, out)


@app.command()
def best(
    evaluation: Evaluation,
    out: Out,
    models: Annotated[Path, typer.Option(help="Folder of the runs' models.")] = Path("models"),
    robustness: Annotated[Path | None, typer.Option(help="Figures of the robustness pipeline, for the card.")] = None,
    corpus: Corpus = CORPUS,
    params: Params = PARAMS,
) -> None:
    """Copy the model that is best on validation to a name that does not change, with its card."""
    from selftrain.config import load_params
    from selftrain.release.best import write_best
    from selftrain.stage import sole_writer
    from selftrain.training.config import all_runs

    values = load_params(params)
    # The robustness pipeline has no runs of its own: it names the models that it tests.
    names = set(all_runs(values, str(params)) or values["runs"].values())
    with sole_writer(out):
        write_best(evaluation, names, models, corpus, out, robustness)


@app.command()
def footprint(
    evaluation: Evaluation,
    models: Annotated[Path, typer.Option(help="Folder of the runs' models.")],
    out: Out,
    params: Params = PARAMS,
) -> None:
    """Measure every run's size and latency on this CPU, and print them beside its accuracy."""
    from selftrain.config import load_params
    from selftrain.release.footprint import write_footprints
    from selftrain.stage import sole_writer
    from selftrain.training.config import all_runs

    names = all_runs(load_params(params), str(params))
    with sole_writer(out):
        write_footprints(evaluation, models, names, out)


@app.command()
def export(
    out: Out,
    model: Annotated[Path, typer.Option(help="A model folder.")] = Path("models/best"),
) -> None:
    """Write a model as ONNX and as a torch.export program, and compare both with the original."""
    from selftrain.release.formats import export_formats

    for name, difference in export_formats(model, out).items():
        print(f"{out / name}: as {model} to {difference:.1e} in log-probabilities")


@app.command()
def register(
    name: Annotated[str, typer.Argument(help="Name in MLflow's registry.")],
    model: Annotated[Path, typer.Option(help="A model folder.")] = Path("models/best"),
) -> None:
    """Register a model in MLflow under the alias `champion`, to be served by `mlflow models serve`."""
    from selftrain.release.register import register as run_register
    from selftrain.tracking import tracking_uri

    uri = run_register(model, name)
    server = tracking_uri().replace("sqlite:///mlflow.db", f"sqlite:///{Path('mlflow.db').resolve()}")
    print(f"{uri}: {model}")
    print(f"serve it: MLFLOW_TRACKING_URI={server} mlflow models serve -m {uri} --env-manager local -p 5001")
    print(
        """ask it:   echo '{"dataframe_records": [{"image": "'$(base64 -w0 image.jpg)'"}]}' | """
        "curl -s localhost:5001/invocations -H 'Content-Type: application/json' -d @-"
    )


@app.command()
def summary(
    evaluation: Evaluation = EVALUATION,
    params: Params = PARAMS,
) -> None:
    """Print the table of runs and where to look next."""
    from selftrain.config import load_params
    from selftrain.report.summary import print_summary
    from selftrain.training.config import all_runs

    print_summary(evaluation, all_runs(load_params(params), str(params)))


@app.command()
def mlflow(
    evaluation: Evaluation = EVALUATION,
    params: Params = PARAMS,
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 5000,
) -> None:
    """Serve MLflow, and print where the runs are compared."""
    from selftrain.config import load_params
    from selftrain.report.mlflow_page import serve_mlflow
    from selftrain.training.config import all_runs

    serve_mlflow(evaluation, all_runs(load_params(params), str(params)), port)


@app.command()
def browse(
    params: Annotated[Path | None, typer.Option(help="Parameters file; by default the pipeline's.")] = None,
    corpus: Annotated[Path | None, typer.Option(help="Corpus folder; by default the pipeline's.")] = None,
    pipeline: Annotated[str | None, typer.Option(help="One of pipelines/, instead of the main job.")] = None,
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 5151,
    build_only: Annotated[
        bool, typer.Option("--build-only", help="Build the dataset and do not open the App.")
    ] = False,
) -> None:
    """Open FiftyOne with the unlabeled pool: predictions, decisions, saved views."""
    from selftrain.config import load_params
    from selftrain.inspection.app import browse as run_browse

    path = params or params_of(pipeline)
    corpus = corpus or corpus_of(pipeline)
    run_browse(load_params(path), str(path), corpus, pipeline, corrections_of(pipeline), port, build_only)


corrections = typer.Typer(help="Corrections between the FiftyOne App and corrections.parquet.", no_args_is_help=True)
app.add_typer(corrections, name="corrections")
Pipeline = Annotated[str | None, typer.Option(help="One of pipelines/, instead of the main job.")]


@corrections.command("export")
def export_(
    pipeline: Pipeline = None,
    who: Annotated[str | None, typer.Option(help="Who said it; by default git's user.")] = None,
) -> None:
    """Write what people tagged `reject` or labeled `corrected` in the App; then `dvc repro` applies it."""
    from selftrain.inspection.corrections import export_corrections

    dataset = _dataset_of(pipeline)
    print(export_corrections(dataset, corrections_of(pipeline), corpus_of(pipeline), who))


@corrections.command("import")
def import_(pipeline: Pipeline = None) -> None:
    """Show the file's corrections in the App."""
    from selftrain.inspection.corrections import import_corrections

    print(import_corrections(_dataset_of(pipeline), corrections_of(pipeline), corpus_of(pipeline), prefer="file"))


@corrections.command("merge")
def merge_(
    other: Annotated[Path, typer.Argument(help="Another corrections.parquet, such as a colleague's.")],
    pipeline: Pipeline = None,
) -> None:
    """Add another file's corrections; where git cannot merge two files, this does."""
    from selftrain.predictions.corrections import merge_files

    print(f"{corrections_of(pipeline)}: {merge_files(corrections_of(pipeline), other)} corrections of {other} added")


@corrections.command("prune")
def prune_(pipeline: Pipeline = None) -> None:
    """Remove corrections that no longer fit the corpus, and tell which."""
    from selftrain.files import read_json
    from selftrain.predictions.corrections import prune

    corpus = corpus_of(pipeline)
    stale = prune(
        corrections_of(pipeline), read_json(corpus / "classes.json", "dvc repro ingest"), corpus / "unlabeled"
    )
    for key, reason in stale.items():
        print(f"key {key} removed: {reason}")
    print(f"{corrections_of(pipeline)}: {len(stale)} stale rows removed")


def _dataset_of(pipeline: str | None) -> Any:
    from selftrain.config import load_params
    from selftrain.inspection.app import open_dataset

    path = params_of(pipeline)
    return open_dataset(load_params(path), str(path))


@app.command()
def diff(
    run_a: Annotated[str, typer.Argument(help="A round.")],
    run_b: Annotated[str | None, typer.Argument(help="Another; by default the same, which takes --rev.")] = None,
    rev: Annotated[str | None, typer.Option(help="Git revision to take RUN_A's selection from.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write it as JSON.")] = None,
    html_file: Annotated[Path | None, typer.Option("--html", help="Write it as a page, with pictures.")] = None,
    examples: Annotated[int, typer.Option(min=0, help="Images named for each change.")] = 24,
    pipeline: Annotated[str | None, typer.Option(help="One of pipelines/, instead of the main job.")] = None,
) -> None:
    """Print which pseudo-labels entered, left, flipped or changed their copies between two rounds or revisions."""
    from selftrain.errors import UserError
    from selftrain.history.compare import compare, print_diff, write_diff_json
    from selftrain.report.diff_page import write_diff_page

    if run_b is None and rev is None:
        raise UserError(f"{run_a} is compared with nothing: name a second round, or a revision by --rev")
    compared = compare(Path("selections") / (pipeline or ""), run_a, run_b or run_a, rev, examples)
    print_diff(compared)
    if json_file is not None:
        write_diff_json(compared, json_file)
    if html_file is not None:
        write_diff_page(compared, corpus_of(pipeline) / "unlabeled", html_file)


@app.command()
def lineage(
    model: Annotated[Path, typer.Argument(help="A model folder, such as models/student3.")],
    deep: Annotated[bool, typer.Option("--deep", help="Read every image and compare its hash.")] = False,
) -> None:
    """Print what a model was made from, back to the shards; exit 1 if a link is missing or changed."""
    from selftrain.history.lineage import trace
    from selftrain.history.print_lineage import print_lineage

    if not print_lineage(trace(model, deep)):
        raise typer.Exit(1)
