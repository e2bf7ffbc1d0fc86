"""The commands of the stages in dvc.yaml: each opens the project, takes its output's lock and calls one function."""

import contextlib
import os
import sys
from typing import Annotated

import typer

from selftrain.cli.app import Out, Pipeline, RunName, app
from selftrain.tables.corpus import classes_of


@app.command()
def code(pipeline: Pipeline = None) -> None:
    """Write what each command and run depends on of the program, for DVC to see what a change concerns."""
    from selftrain.dependencies import write_code
    from selftrain.plumbing.locks import sole_writer
    from selftrain.project import Project

    project = Project.open(pipeline=pipeline)
    with sole_writer(project.code):
        write_code(project)


@app.command()
def digits(out: Out, pipeline: Pipeline = None) -> None:
    """Write the built-in corpus, scikit-learn's handwritten digits, as image folders."""
    from selftrain.corpus.digits import write_digits
    from selftrain.params.digits import DigitsConfig
    from selftrain.plumbing.locks import sole_writer
    from selftrain.project import Project

    project = Project.open(pipeline=pipeline)
    with sole_writer(out):
        write_digits(project.section("digits", DigitsConfig), project.seed, out)


@app.command()
def shift(out: Out, pipeline: Pipeline = None) -> None:
    """Write image folders again, some corrupted: a change of domain between labeled images and the pool."""
    from selftrain.evaluation.robustness.shift import ShiftConfig, write_shifted
    from selftrain.plumbing.locks import sole_writer
    from selftrain.project import Project

    project = Project.open(pipeline=pipeline)
    with sole_writer(out):
        write_shifted(project.section("shift", ShiftConfig), project.seed, out)


@app.command()
def ingest(
    pipeline: Pipeline = None,
    verify: Annotated[bool, typer.Option(help="Read every shard, not only those that changed.")] = False,
) -> None:
    """Bring images into the corpus: WebDataset shards and their manifest."""
    from selftrain.corpus.ingest import ingest as run_ingest
    from selftrain.params.ingest import IngestConfig
    from selftrain.plumbing.locks import sole_writer
    from selftrain.project import Project

    project = Project.open(pipeline=pipeline)
    config, hardware = project.section("ingest", IngestConfig), project.hardware
    with sole_writer(project.corpus):
        run_ingest(config, project.seed, project.corpus, verify, hardware)


@app.command()
def train(run: RunName, pipeline: Pipeline = None) -> None:
    """Train one run; goes on where a killed process stopped."""
    from selftrain.params.runs import train_config
    from selftrain.plumbing.locks import sole_writer
    from selftrain.project import Project

    project = Project.open(pipeline=pipeline)
    # Not asked of the project, whose code no result depends on: how a run's parameters are laid over the others does.
    config, hardware = train_config(project.values, run, str(project.params_path)), project.hardware
    in_torchrun = "RANK" in os.environ
    # The process that started torchrun holds the lock.
    with contextlib.nullcontext() if in_torchrun else sole_writer(project.run(run).model):
        from selftrain.training.run import training_of
        from selftrain.training.train import train as run_train

        run_train(training_of(project, run, config, hardware), restart=_this_command())


def _this_command() -> list[str]:
    """What torchrun starts in each of its processes."""
    return ["-m", "selftrain", *sys.argv[1:]]


@app.command()
def adopt(run: RunName, pipeline: Pipeline = None) -> None:
    """Take a model from elsewhere, or several averaged, as a run of the pipeline."""
    from selftrain.plumbing.locks import sole_writer
    from selftrain.project import Project
    from selftrain.training.adopt import adopt as run_adopt

    project = Project.open(pipeline=pipeline)
    config, out = project.adopted_config(run), project.run(run).model
    classes = classes_of(project.corpus)
    with sole_writer(out):
        run_adopt(run, config, project.name, classes, project.seed, out)


@app.command()
def predict(run: RunName, pipeline: Pipeline = None) -> None:
    """Write a run's predictions of every image."""
    from selftrain.params.predict import PredictConfig
    from selftrain.prediction.predict import predict as run_predict
    from selftrain.project import Project
    from selftrain.tables.keys import SPLITS
    from selftrain.training.distributed import rank_and_world
    from selftrain.training.launch import in_processes, wants_processes

    project = Project.open(pipeline=pipeline)
    config, hardware = project.section("predict", PredictConfig), project.hardware
    spec = project.run(run)
    if hardware.engine == "torchrun" and wants_processes(hardware):
        in_processes(hardware, _this_command())
        return
    process = rank_and_world()
    run_predict(spec.model, project.corpus, SPLITS, spec.predictions, config, project.seed, hardware, *process)


@app.command()
def select(
    round_: Annotated[str, typer.Argument(metavar="ROUND", help="A run under `rounds`.")], pipeline: Pipeline = None
) -> None:
    """Decide on every unlabeled image: kept, how often, or why not."""
    from selftrain.plumbing.locks import sole_writer
    from selftrain.project import Project
    from selftrain.selection.select import select as run_select

    project = Project.open(pipeline=pipeline)
    config, out = project.select_config(round_), project.selections / round_
    hardware = project.hardware
    table, *earlier = [run.predictions / "unlabeled" for run in project.teachers_of(round_)]
    with sole_writer(out):
        run_select(config, project.seed, table, project.corpus, out, project.corrections, tuple(earlier), hardware)


@app.command()
def evaluate(run: RunName, pipeline: Pipeline = None) -> None:
    """Write a run's figures: accuracy, calibration, pseudo-label quality, comparison with its teacher."""
    from selftrain.evaluation.evaluate import Inputs
    from selftrain.evaluation.evaluate import evaluate as run_evaluate
    from selftrain.params.evaluate import EvaluateConfig
    from selftrain.plumbing.locks import sole_writer
    from selftrain.project import Project

    project = Project.open(pipeline=pipeline)
    config, spec = project.section("evaluate", EvaluateConfig), project.run(run)
    teacher = None if spec.teacher is None else project.run(spec.teacher).predictions
    # `review` and `report` depend on this folder, in pipelines without rounds too.
    project.selections.mkdir(parents=True, exist_ok=True)
    with sole_writer(spec.evaluation):
        run_evaluate(
            Inputs(project.corpus, spec.model, spec.predictions, teacher, spec.selection), config, spec.evaluation
        )


@app.command()
def review(pipeline: Pipeline = None) -> None:
    """List each round's most doubtful pseudo-labels, from every run's predictions."""
    from selftrain.evaluation.review import Rounds
    from selftrain.evaluation.review import review as run_review
    from selftrain.params.review import ReviewConfig
    from selftrain.plumbing.locks import sole_writer
    from selftrain.project import Project

    project = Project.open(pipeline=pipeline)
    config = project.section("review", ReviewConfig)
    teachers = {run.name: run.teacher or "" for run in project.rounds}
    with sole_writer(project.review):
        rounds = Rounds(teachers, project.predictions, project.selections)
        run_review(rounds, project.evaluations, project.corpus, config, project.review)


@app.command()
def robustness(
    name: Annotated[str, typer.Argument(help="A model of the section `tested`.")], pipeline: Pipeline = None
) -> None:
    """Put a model through corruptions, perturbations, attacks and RandAugment, into its own tables."""
    from selftrain.evaluation.robustness.run import run_suites
    from selftrain.params.robustness import RobustnessConfig
    from selftrain.plumbing.locks import sole_writer
    from selftrain.project import Project

    project = Project.open(pipeline=pipeline)
    config, hardware = project.section("robustness", RobustnessConfig), project.hardware
    out = project.robustness / name
    with sole_writer(out):
        run_suites(project.tested(name), project.corpus, config, project.seed, hardware, out)


@app.command()
def robustness_figures(pipeline: Pipeline = None) -> None:
    """Write mCE, mFR, attack curves and the robustness page from the tables."""
    from selftrain.params.robustness import RobustnessConfig
    from selftrain.plumbing.locks import sole_writer
    from selftrain.project import Project
    from selftrain.report.robustness_page import write_robustness

    project = Project.open(pipeline=pipeline)
    reference = project.section("robustness", RobustnessConfig).reference
    with sole_writer(project.robustness_figures):
        write_robustness(project.robustness, list(project.config.tested), reference, project.robustness_figures)


@app.command()
def replication_tables(pipeline: Pipeline = None) -> None:
    """Print the small-scale replication's Tables 2 and 3 for this data."""
    from selftrain.plumbing.locks import sole_writer
    from selftrain.project import Project
    from selftrain.report.replication import write_replication_tables

    project = Project.open(pipeline=pipeline)
    with sole_writer(project.replication):
        write_replication_tables(project.evaluations, project.robustness, project.runs, project.replication)


@app.command()
def report(pipeline: Pipeline = None) -> None:
    """Write the report, one self-contained page, and hand its figures to MLflow."""
    from selftrain.plumbing.locks import sole_writer
    from selftrain.project import Project
    from selftrain.report.build import Sources, build_report

    project = Project.open(pipeline=pipeline)
    with sole_writer(project.report):
        sources = Sources(project.evaluations, project.corpus, project.selections, project.review)
        build_report(sources, project.runs, project.report)


@app.command()
def best(
    pipeline: Pipeline = None,
    robustness: Annotated[
        str | None, typer.Option(help="A pipeline whose robustness figures the card gets; the model is written there.")
    ] = None,
) -> None:
    """Copy the model that is best on validation to a name that does not change, with its card."""
    from selftrain.plumbing.locks import sole_writer
    from selftrain.project import Project
    from selftrain.release.best import write_best

    project = Project.open(pipeline=pipeline)
    tested = None if robustness is None else Project.open(pipeline=robustness)
    out = (tested or project).best
    figures = None if tested is None else tested.robustness_figures / "details" / "figures.json"
    with sole_writer(out):
        write_best(project.evaluations, project.runs, project.models, project.corpus, out, figures)


@app.command()
def footprint(pipeline: Pipeline = None) -> None:
    """Measure every run's size and latency on this CPU, and print them beside its accuracy."""
    from selftrain.plumbing.locks import sole_writer
    from selftrain.project import Project
    from selftrain.release.footprint import write_footprints

    project = Project.open(pipeline=pipeline)
    with sole_writer(project.footprint):
        write_footprints(project.evaluations, project.models, project.runs, project.footprint)
