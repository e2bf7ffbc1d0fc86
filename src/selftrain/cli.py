"""The command line: one sub-command a stage. Each parses paths, loads its params and calls one function."""

import contextlib
import os
import sys
from pathlib import Path
from typing import Annotated

# OpenMP threads that spin while they wait make a busy two-core machine ten times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import typer

from selftrain.errors import UserError

app = typer.Typer(
    help="Self-training for image classifiers, with the pseudo-label set as the product.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

TABLE_LIBRARIES = ("pyarrow", "polars", "duckdb", "_duckdb")
"""What they raise past our own checks is a damaged file."""

Params = Annotated[Path, typer.Option(help="Parameters file.")]
Corpus = Annotated[Path, typer.Option(help="Corpus folder.")]
Out = Annotated[Path, typer.Option(help="What to write; the stage's DVC output.")]
Evaluation = Annotated[Path, typer.Option(help="A pipeline's evaluations.")]
PARAMS = Path("params.yaml")
CORPUS = Path("data/corpus")
EVALUATION = Path("evaluation/noisy_student")


@app.command()
def digits(out: Out, params: Params = PARAMS) -> None:
    """Write the built-in corpus, scikit-learn's handwritten digits, as image folders."""
    from selftrain.config import load_params, load_seed, parse_section
    from selftrain.corpus.config import DigitsConfig
    from selftrain.corpus.digits import write_digits
    from selftrain.stage import sole_writer

    values = load_params(params)
    with sole_writer(out):
        write_digits(
            parse_section(values.get("digits"), DigitsConfig, f"{params}: digits"), load_seed(values, params), out
        )


@app.command()
def shift(out: Out, params: Params = PARAMS) -> None:
    """Write image folders again, some corrupted: a change of domain between labeled images and the pool."""
    from selftrain.config import load_params, load_seed, parse_section
    from selftrain.evaluation.robustness.shift import ShiftConfig, write_shifted
    from selftrain.stage import sole_writer

    values = load_params(params)
    with sole_writer(out):
        write_shifted(
            parse_section(values.get("shift"), ShiftConfig, f"{params}: shift"), load_seed(values, params), out
        )


@app.command()
def ingest(out: Out, params: Params = PARAMS) -> None:
    """Bring images into the corpus: WebDataset shards and their manifest."""
    from selftrain.config import load_params, load_seed, parse_section
    from selftrain.corpus.config import IngestConfig
    from selftrain.corpus.ingest import ingest as run_ingest
    from selftrain.stage import sole_writer

    values = load_params(params)
    with sole_writer(out):
        run_ingest(
            parse_section(values.get("ingest"), IngestConfig, f"{params}: ingest"), load_seed(values, params), out
        )


@app.command()
def train(
    run: Annotated[str, typer.Argument(help="Name under `supervised` or `rounds` in the parameters.")],
    out: Out,
    corpus: Corpus = CORPUS,
    selection: Annotated[Path | None, typer.Option(help="The round's selection.")] = None,
    predictions: Annotated[Path | None, typer.Option(help="The teacher's table of the unlabeled split.")] = None,
    teacher: Annotated[Path | None, typer.Option(help="The teacher's model folder.")] = None,
    pipeline: Annotated[str, typer.Option(help="MLflow tag.")] = "noisy_student",
    params: Params = PARAMS,
) -> None:
    """Train one run; goes on where a killed process stopped."""
    from selftrain.config import load_params, load_seed, parse_section
    from selftrain.hardware import HardwareConfig
    from selftrain.stage import end_with_parent, sole_writer
    from selftrain.training.config import train_config

    values = load_params(params)
    config = train_config(values, run, str(params))
    hardware = parse_section(values.get("hardware"), HardwareConfig, f"{params}: hardware")
    seed = load_seed(values, params)
    in_torchrun = "RANK" in os.environ
    if in_torchrun:
        end_with_parent()
    # The process that started torchrun holds the lock.
    with contextlib.nullcontext() if in_torchrun else sole_writer(out):
        from selftrain.training.run import Run
        from selftrain.training.train import train as run_train

        training = Run(run, pipeline, config, hardware, seed, corpus, out, selection, predictions, teacher)
        run_train(training, restart=["-m", "selftrain", *sys.argv[1:]])


@app.command()
def adopt(
    run: Annotated[str, typer.Argument(help="Name under `teachers`, `ensembles` or `pretrained` in the parameters.")],
    out: Out,
    corpus: Corpus = CORPUS,
    pipeline: Annotated[str, typer.Option(help="MLflow tag.")] = "noisy_student",
    params: Params = PARAMS,
) -> None:
    """Take a model from elsewhere, or several averaged, as a run of the pipeline."""
    from selftrain.config import load_params, load_seed
    from selftrain.files import read_json
    from selftrain.stage import sole_writer
    from selftrain.training.adopt import adopt as run_adopt
    from selftrain.training.adopted_config import adopted_config

    values = load_params(params)
    config = adopted_config(values, run, str(params))
    classes = read_json(corpus / "classes.json", "dvc repro ingest")
    with sole_writer(out):
        run_adopt(run, config, pipeline, classes, load_seed(values, params), out)


@app.command()
def predict(
    model: Annotated[Path, typer.Option(help="The run's model folder.")],
    out: Out,
    corpus: Corpus = CORPUS,
    split: Annotated[list[str] | None, typer.Option(help="Split to label; repeat for several.")] = None,
    params: Params = PARAMS,
) -> None:
    """Write a run's full opinion of every image of the splits."""
    from selftrain.config import load_params, load_seed, parse_section
    from selftrain.hardware import HardwareConfig
    from selftrain.predictions.predict import predict as run_predict
    from selftrain.predictions.predict_config import PredictConfig
    from selftrain.stage import sole_writer

    values = load_params(params)
    config = parse_section(values.get("predict"), PredictConfig, f"{params}: predict")
    hardware = parse_section(values.get("hardware"), HardwareConfig, f"{params}: hardware")
    splits = split or ["labeled", "unlabeled", "validation", "test"]
    with sole_writer(out):
        run_predict(model, corpus, splits, out, config, load_seed(values, params), hardware)


@app.command()
def select(
    round_: Annotated[str, typer.Argument(metavar="ROUND", help="Name under `rounds` in the parameters.")],
    predictions: Annotated[Path, typer.Option(help="The teacher's table of the unlabeled split.")],
    out: Out,
    corpus: Corpus = CORPUS,
    corrections: Annotated[Path | None, typer.Option(help="What people said of single images.")] = None,
    params: Params = PARAMS,
) -> None:
    """Decide on every unlabeled image: kept, how often, or why not."""
    from selftrain.config import load_params, load_seed
    from selftrain.predictions.config import select_config
    from selftrain.predictions.select import select as run_select
    from selftrain.stage import sole_writer

    values = load_params(params)
    with sole_writer(out):
        config = select_config(values, round_, str(params))
        run_select(config, load_seed(values, params), predictions, corpus, out, corrections)


@app.command()
def evaluate(
    model: Annotated[Path, typer.Option(help="The run's model folder.")],
    predictions: Annotated[Path, typer.Option(help="The run's prediction tables.")],
    out: Out,
    corpus: Corpus = CORPUS,
    teacher_predictions: Annotated[Path | None, typer.Option(help="The teacher's prediction tables.")] = None,
    selection: Annotated[Path | None, typer.Option(help="What the run was trained on.")] = None,
    params: Params = PARAMS,
) -> None:
    """Write a run's figures: accuracy, calibration, pseudo-label quality, comparison with its teacher."""
    from selftrain.config import load_params, parse_section
    from selftrain.evaluation.config import EvaluateConfig
    from selftrain.evaluation.evaluate import Inputs
    from selftrain.evaluation.evaluate import evaluate as run_evaluate
    from selftrain.stage import sole_writer

    config = parse_section(load_params(params).get("evaluate"), EvaluateConfig, f"{params}: evaluate")
    with sole_writer(out):
        run_evaluate(Inputs(corpus, model, predictions, teacher_predictions, selection), config, out)


@app.command()
def review(
    evaluation: Evaluation,
    predictions: Annotated[Path, typer.Option(help="Folder of the runs' prediction tables.")],
    selections: Annotated[Path, typer.Option(help="Folder of the rounds' selections.")],
    out: Out,
    corpus: Corpus = CORPUS,
    params: Params = PARAMS,
) -> None:
    """List each round's most doubtful pseudo-labels, from every run's opinion."""
    from selftrain.config import load_params, parse_section
    from selftrain.evaluation.review import Rounds
    from selftrain.evaluation.review import review as run_review
    from selftrain.evaluation.review_config import ReviewConfig
    from selftrain.stage import sole_writer
    from selftrain.training.config import run_entry

    values = load_params(params)
    config = parse_section(values.get("review"), ReviewConfig, f"{params}: review")
    entries = {name: run_entry(values, name, str(params))[0] for name in values.get("rounds") or {}}
    teachers = {name: entry.teacher or "" for name, entry in entries.items()}
    with sole_writer(out):
        run_review(Rounds(teachers, predictions, selections), evaluation, corpus, config, out)


@app.command()
def robustness(
    model: Annotated[Path, typer.Option(help="The run's model folder.")],
    out: Out,
    corpus: Corpus = CORPUS,
    params: Params = PARAMS,
) -> None:
    """Put a run through corruptions, perturbations, attacks and RandAugment, into its own tables."""
    from selftrain.config import load_params, load_seed, parse_section
    from selftrain.evaluation.robustness.config import RobustnessConfig
    from selftrain.evaluation.robustness.suites import run_suites
    from selftrain.hardware import HardwareConfig
    from selftrain.stage import sole_writer

    values = load_params(params)
    config = parse_section(values.get("robustness"), RobustnessConfig, f"{params}: robustness")
    hardware = parse_section(values.get("hardware"), HardwareConfig, f"{params}: hardware")
    with sole_writer(out):
        run_suites(model, corpus, config, load_seed(values, params), hardware, out)


@app.command()
def check(params: Params = PARAMS) -> None:
    """Check every section of the parameters and the corrections, and mend DVC's lock file if a killed DVC broke it."""
    from selftrain.dvc_lock import mend_dvc_lock
    from selftrain.files import read_json
    from selftrain.params import check_params
    from selftrain.predictions.corrections import check_corrections, read_corrections

    check_params(params)
    mend_dvc_lock()
    corrections, classes = Path("corrections.parquet"), CORPUS / "classes.json"
    if corrections.exists() and classes.exists():
        check_corrections(
            read_corrections(corrections), corrections, read_json(classes, "dvc repro"), CORPUS / "unlabeled"
        )
    print(f"{params}: fine")


def main() -> None:
    """Run the command line. Errors that the user can mend are one line; ``--debug`` shows where they come from."""
    from selftrain import cli_results, cli_studies  # noqa: F401, they add their commands to the app

    debug = "--debug" in sys.argv
    sys.argv = [argument for argument in sys.argv if argument != "--debug"]
    try:
        app()
    except (UserError, OSError) as error:
        if debug:
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(1) from None
    except Exception as error:
        if debug or type(error).__module__.partition(".")[0] not in TABLE_LIBRARIES:
            raise
        reason = " ".join(str(error).split())[:300]
        print(f"error: a table cannot be read: {reason}; restore it with `dvc checkout`", file=sys.stderr)
        raise SystemExit(1) from None
