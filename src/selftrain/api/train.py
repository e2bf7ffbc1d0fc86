"""One training without DVC, for a notebook or somebody's own orchestrator."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selftrain.api.model import Model


def train(
    labeled: str | Path,
    *,
    pool: str | Path | None = None,
    validation: str | Path | None = None,
    teacher: "str | Path | Model | None" = None,
    algorithm: str | Mapping[str, Any] = "supervised",
    out: str | Path = "trained",
    model: str = "resnet18",
    image_size: int = 96,
    steps: int = 300,
    batch_size: int = 32,
    learning_rate: float = 0.001,
    unlabeled_ratio: int | None = None,
    select: Mapping[str, Any] | None = None,
    hardware: Mapping[str, Any] | None = None,
    seed: int = 0,
    track: bool = False,
    **parameters: Any,
) -> "Model":
    """Train a model and return it; its folder is ``out``. A killed training goes on when it is called again.

    ``labeled`` is a folder with a folder of images a class, shards, or a corpus that `selftrain ingest` made.
    ``pool`` are the unlabeled images of an algorithm that takes some. ``validation`` is like ``labeled``; None cuts a
    fifth of it. ``teacher`` is a model or its folder; None trains one on the labeled images, where one is needed.
    ``algorithm`` is a name, or a mapping of its ``name`` and its own parameters. ``select`` are parameters of the
    section of that name, ``parameters`` more of the section ``train``, ``hardware`` those of that section. ``track``
    logs the training to MLflow.

    Raises UserError for parameters that do not fit, and for images that cannot be used.
    """
    from selftrain.algorithms.algorithm import find_algorithm
    from selftrain.api.model import load
    from selftrain.params.select import SelectConfig
    from selftrain.params.train import TrainConfig
    from selftrain.plumbing.hardware import HardwareConfig
    from selftrain.plumbing.locks import WORK
    from selftrain.plumbing.sections import parse_section
    from selftrain.training.run import Training
    from selftrain.training.train import train as run_train

    choice = {"name": algorithm} if isinstance(algorithm, str) else dict(algorithm)
    found, algorithm_config = find_algorithm(
        choice["name"], {name: value for name, value in choice.items() if name != "name"}
    )
    needs = found.needs(algorithm_config)
    takes_pool = "unlabeled" in needs.views
    takes_teacher = takes_pool or needs.teacher or needs.reads_table("labeled")
    machine = parse_section({"processes": 1, **(hardware or {})}, HardwareConfig, "hardware")
    values = {
        "model": model,
        "image_size": image_size,
        "steps": steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "validate_every": max(1, steps // 10),
        **parameters,
    }
    ratio = unlabeled_ratio if unlabeled_ratio is not None else 3
    of_pool = {"unlabeled_ratio": ratio} if takes_pool else {}
    config = parse_section({**values, "algorithm": choice, **of_pool}, TrainConfig, "train")

    folder = Path(out)
    work = WORK / "trainings" / folder.resolve().name
    corpus = _corpus(Path(labeled), pool, validation, work / "corpus", seed)
    selection = predictions = of_teacher = None
    if takes_teacher:
        of_teacher = _teacher(teacher, corpus, work, {**values, "algorithm": {"name": "supervised"}}, machine, seed)
        predictions = work / "predictions" / "unlabeled"
        _predict(of_teacher, corpus, work / "predictions", takes_pool, machine, seed)
    if takes_pool:
        from selftrain.selection.select import select as run_select

        assert predictions is not None
        selection = work / "selection"
        run_select(parse_section(select or {}, SelectConfig, "select"), seed, predictions, corpus, selection)
    training = Training(
        folder.name, "notebook", config, machine, seed, corpus, folder, selection, predictions, of_teacher, track
    )
    run_train(training, restart=[])
    return load(folder)


def _corpus(labeled: Path, pool: str | Path | None, validation: str | Path | None, corpus: Path, seed: int) -> Path:
    """The corpus of the images: theirs, if ``labeled`` is one, or one made for this training."""
    from selftrain.corpus.small import ingest_small
    from selftrain.tables.corpus import CLASSES

    if (labeled / CLASSES).is_file():
        return labeled
    ingest_small(
        labeled, None if pool is None else Path(pool), None if validation is None else Path(validation), corpus, seed
    )
    return corpus


def _teacher(
    teacher: "str | Path | Model | None", corpus: Path, work: Path, values: dict[str, Any], machine: Any, seed: int
) -> Path:
    """The teacher's folder; without one, a model is trained on the labeled images."""
    from selftrain.params.train import TrainConfig
    from selftrain.plumbing.sections import parse_section
    from selftrain.training.run import Training
    from selftrain.training.train import train as run_train

    if teacher is not None:
        return Path(teacher) if isinstance(teacher, (str, Path)) else teacher.folder
    folder = work / "teacher"
    config = parse_section(values, TrainConfig, "train")
    run_train(
        Training(f"{work.name}_teacher", "notebook", config, machine, seed, corpus, folder, track=False), restart=[]
    )
    return folder


def _predict(model: Path, corpus: Path, out: Path, pool: bool, machine: Any, seed: int) -> None:
    from selftrain.params.predict import PredictConfig
    from selftrain.prediction.predict import predict

    splits = ("labeled", "unlabeled") if pool else ("labeled",)
    predict(model, corpus, splits, out, PredictConfig(), seed, machine)
