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
    steps: int | None = None,
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
    ``pool`` are the unlabeled images of an algorithm that takes some; ``"labeled"``: the labeled images, without their
    labels. ``validation`` is like ``labeled``; None cuts a fifth of it. ``teacher`` is a model or its folder; None
    trains one on the labeled images, where one is needed. ``algorithm`` is a name, or a mapping of its ``name`` and its
    own parameters. ``select`` are parameters of the section of that name, ``parameters`` more of the section ``train``,
    ``hardware`` those of that section. It takes 300 ``steps``, unless ``epochs`` are given. ``track`` logs the training
    to MLflow.

    Raises UserError for parameters that do not fit, and for images that cannot be used.
    """
    from selftrain.api.model import load
    from selftrain.learning.algorithm import find_algorithm
    from selftrain.params.predict import PredictConfig
    from selftrain.params.select import SelectConfig
    from selftrain.params.train import TrainConfig, check_networks, without
    from selftrain.plumbing.errors import UserError
    from selftrain.plumbing.files import as_file_name
    from selftrain.plumbing.hardware import HardwareConfig
    from selftrain.plumbing.locks import WORK
    from selftrain.plumbing.sections import load_seed, parse_section
    from selftrain.prediction.predict import predict
    from selftrain.selection.policy import find_policy
    from selftrain.training.check import check_run, check_takes_weights
    from selftrain.training.run import Training
    from selftrain.training.train import train as run_train

    choice = {"name": algorithm} if isinstance(algorithm, str) else dict(algorithm)
    if "name" not in choice:
        raise UserError("algorithm: name: missing; give {'name': 'uda', …}")
    load_seed({"seed": seed}, Path("st.train"))
    found, algorithm_config = find_algorithm(str(choice["name"]), without(choice, "name"))
    needs = found.needs(algorithm_config)
    takes_pool = "unlabeled" in needs.views and pool != "labeled"
    if not isinstance(hardware or {}, Mapping):
        raise UserError(f"hardware: expected parameters, as in {{'device': 'cpu'}}; found {hardware!r}")
    machine = parse_section({"processes": 1, **(hardware or {})}, HardwareConfig, "hardware")
    if machine.processes != 1:
        raise UserError("hardware.processes: `st.train` is one process; train a project for more (`selftrain init`)")
    if steps is None and parameters.get("epochs") is None:
        steps = 300
    values = {
        "model": model,
        "image_size": image_size,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        **({} if steps is None else {"steps": steps, "validate_every": max(1, steps // 10)}),
        **parameters,
    }
    if pool == "labeled":
        pool, values = None, values | {"pool": "labeled"}
    ratio = unlabeled_ratio if unlabeled_ratio is not None else 3 if "unlabeled" in needs.views else 0
    config = parse_section({**values, "algorithm": choice, "unlabeled_ratio": ratio}, TrainConfig, "train")
    selecting = parse_section(select or {}, SelectConfig, "select")
    check_networks(config, "train")
    check_run(config, True, "st", machine)
    if selecting.weight != "one":
        check_takes_weights(config, "select.weight")
    starts = [config.init, *(config.of_network(name).init for name in needs.networks)]
    takes_teacher = takes_pool or needs.teacher or needs.reads_table("labeled") or "teacher" in starts
    _check_images(Path(labeled), pool, validation, takes_pool, f"{choice['name']}", selects=select is not None)

    folder = Path(out) if Path(out).name else Path(out).resolve()
    work = WORK / "trainings" / as_file_name(folder.resolve())
    corpus = _corpus(Path(labeled), pool, validation, work / "corpus", seed)
    selection = predictions = of_teacher = None
    if takes_teacher:
        of_labels = without(values, "networks", "init", "then") | {"algorithm": {"name": "supervised"}}
        of_teacher = _teacher(teacher, corpus, work, of_labels, machine, seed)
        predictions = work / "predictions" / "unlabeled"
        splits = ("labeled", "validation", "unlabeled") if takes_pool else ("labeled",)
        embeddings = selecting.gate is not None or find_policy(selecting.policy).uses_embeddings
        predict(of_teacher, corpus, splits, work / "predictions", PredictConfig(embeddings=embeddings), seed, machine)
    if takes_pool:
        from selftrain.selection.select import select as run_select

        assert predictions is not None
        selection = work / "selection"
        run_select(selecting, seed, predictions, corpus, selection)
    # Its random numbers come from its name, and two folders may have the same one.
    training = Training(
        folder.name, "notebook", config, machine, seed, corpus, folder, selection, predictions, of_teacher, track,
        place=work.name,
    )  # fmt: skip
    run_train(training, restart=[])
    return load(folder)


def _check_images(
    labeled: Path,
    pool: str | Path | None,
    validation: str | Path | None,
    takes_pool: bool,
    algorithm: str,
    *,
    selects: bool,
) -> None:
    """Raises UserError for images that would not be looked at, and for a pool that is missing."""
    from selftrain.plumbing.errors import UserError
    from selftrain.tables.corpus import CLASSES

    if (labeled / CLASSES).is_file():
        if pool is not None or validation is not None:
            raise UserError(f"{labeled}: is a corpus, with its own pool and validation images; leave out yours")
    elif takes_pool and pool is None:
        raise UserError(f"pool: {algorithm} needs unlabeled images")
    if not takes_pool and (pool is not None or selects):
        raise UserError(f"{'select' if pool is None else 'pool'}: {algorithm} takes no unlabeled images; leave it out")


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
