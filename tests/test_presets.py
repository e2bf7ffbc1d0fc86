"""The shipped params files and presets against the config models, and the presets against their papers."""

import shutil
from pathlib import Path

import pytest
from dvc.repo import Repo

from selftrain.check import check_project
from selftrain.params.runs import train_config
from selftrain.params.select import select_config
from selftrain.params.train import TrainConfig, phases
from selftrain.plumbing.sections import load_params
from selftrain.project import PIPELINES as FOLDER
from selftrain.project import Project
from tests.repository import ROOT


def project_of(path: Path) -> Project:
    return Project(ROOT, path, load_params(path))


PRESETS_OF_THE_MAIN_JOB = ("noisy_student", "cifar10_4k")
PIPELINES = sorted(path for path in (ROOT / "pipelines").iterdir() if path.is_dir())


@pytest.mark.parametrize("folder", PIPELINES, ids=lambda path: path.name)
def test_every_pipeline_has_a_preset_and_a_readme_and_all_are_valid(folder: Path) -> None:
    assert (folder / "paper.yaml").is_file()
    for path in folder.glob("*.yaml"):
        if path.name not in ("dvc.yaml", "studies.yaml"):
            check_project(project_of(path), paths=False)
    assert (folder / "README.md").is_file()
    if folder.name not in PRESETS_OF_THE_MAIN_JOB:
        assert (folder / "params.yaml").is_file()
        assert (folder / "dvc.yaml").is_file()


@pytest.mark.parametrize("folder", PIPELINES, ids=lambda path: path.name)
def test_dvc_takes_every_preset(folder: Path, tmp_path: Path) -> None:
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path / name)
    leave_out = shutil.ignore_patterns("dvc.lock", ".gitignore")
    shutil.copytree(folder, tmp_path / "pipelines" / folder.name, ignore=leave_out)
    own = tmp_path if folder.name in PRESETS_OF_THE_MAIN_JOB else tmp_path / "pipelines" / folder.name
    shutil.copy(folder / "paper.yaml", own / "params.yaml")
    Repo.init(str(tmp_path), no_scm=True)
    with Repo(str(tmp_path)) as repo:
        stages = [stage for stage in repo.index.stages if Path(stage.path).parent == own]
        assert len(stages) >= 3
        for stage in stages:
            for dep in stage.deps:
                if hasattr(dep, "params") and dep.params:  # without names it is the whole file
                    assert set(dep.params) == set(dep.read_params()), stage.addressing


def test_meta_pseudo_labels_at_scale_is_sections_3_3_and_4() -> None:
    folder = ROOT / "pipelines" / "meta_pseudo_labels"
    resnet, large = (load_params(folder / name) for name in ("resnet50.yaml", "efficientnet_l2.yaml"))
    config = train_config(resnet, "meta_pseudo_labels", "p")
    finetune = phases(config)["finetune"]
    assert (config.model, config.batch_size, config.batch_size * config.unlabeled_ratio) == ("resnet50", 4096, 32768)
    assert (config.steps, finetune.steps, finetune.learning_rate, finetune.schedule) == (
        500000,
        10000,
        1e-4,
        "constant",
    )
    select = select_config(resnet, "meta_pseudo_labels", "p")
    assert (select.policy, select.per_class) == ("class_probability", 12800)
    config = train_config(large, "meta_pseudo_labels", "p")
    finetune = phases(config)["finetune"]
    assert (config.model, config.image_size, config.optimizer) == ("tf_efficientnet_l2", 512, "rmsproptf")
    assert (finetune.optimizer, finetune.scaled_learning_rate, finetune.steps) == ("lars", 0.001, 20000)
    assert finetune.batch_size == 4096
    assert (config.batch_size, config.batch_size * config.unlabeled_ratio) == (2048, 16384)
    assert (config.epochs, config.steps) == (None, 1_000_000)
    assert phases(train_config(resnet, "meta_pseudo_labels", "p"))["finetune"].batch_size == 512


@pytest.mark.parametrize(("data", "images"), [("cifar10", 50000), ("svhn", 35000), ("paper", 12800)])
def test_reduced_meta_pseudo_labels_is_appendix_e(data: str, images: int) -> None:
    params = load_params(ROOT / "pipelines" / "reduced_meta_pseudo_labels" / f"{data}.yaml")
    config = train_config(params, "reduced_meta_pseudo_labels", "p")
    select = select_config(params, "reduced_meta_pseudo_labels", "p")
    assert (select.policy, select.per_class) == ("class_probability", images)
    assert config.model == ("tf_efficientnet_b7" if data == "paper" else "tf_efficientnet_b0")
    assert config.algorithm.parameters["hidden"] == (512 if data == "paper" else 128)
    if data != "paper":
        assert of_table(train_config(params, "teacher", "p")) == TABLES[data]["supervised"]
        own, student = config.algorithm.parameters, TABLES[data]["meta_pseudo_labels"]
        assert (config.weight_decay, own["label_smoothing"], config.learning_rate, config.steps) == student[:4]
        assert (config.batch_size, config.noise.dropout) == student[5:7]
        assert_small_images_are_noised_as_in_the_authors_code(config)


def test_robustness_is_measured_at_the_size_of_its_reference() -> None:
    params = load_params(ROOT / "pipelines" / "robustness" / "paper.yaml")
    assert (params["robustness"]["reference"], params["robustness"]["image_size"]) == ("alexnet", 224)


def test_the_replications_preset_is_the_reports() -> None:
    params = load_params(ROOT / "pipelines" / "noisy_student_lite" / "paper.yaml")
    assert (params["ingest"]["validation"]["share"], params["ingest"]["test"]["share"]) == (0.1, 0.2)
    teacher = train_config(params, "teacher", "p")
    assert (teacher.model, teacher.weights, teacher.image_size, teacher.epochs) == ("resnet50", "timm", 224, 100)
    assert (teacher.batch_size, teacher.learning_rate, teacher.decay_rate, teacher.decay_epochs) == (32, 0.01, 0.1, 30)
    for run, operations in (("student", 0), ("noisy_student", 2)):
        first, second = phases(train_config(params, run, "p")).values()
        assert (first.algorithm.name, first.epochs, first.algorithm.parameters) == (
            "pretraining",
            50,
            {"labels": "hard"},
        )
        assert (second.algorithm.name, second.epochs, second.schedule_from) == ("supervised", 50, 50)
        assert (first.noise.randaugment_ops, second.noise.randaugment_ops) == (0, operations)
    for run, splits in (
        ("labeling_teacher", ("labeled", "validation")),
        ("labeling_teacher_leaky", ("labeled", "validation", "test")),
    ):
        resplit = train_config(params, run, "p").resplit
        assert resplit is not None
        assert (resplit.splits, resplit.validation) == (splits, 0.3)


def test_studies_are_valid_and_change_what_they_say() -> None:
    from selftrain.params.predict import PredictConfig
    from selftrain.plumbing.sections import merged
    from selftrain.studies.study import all_studies, load_study

    found = all_studies(ROOT / FOLDER)
    assert list(found.values()).count("noisy_student") == 10, "Tables 6 and 7 and findings #1 to #8 of Noisy Student"
    assert list(found.values()).count("meta_pseudo_labels") == 6, (
        "Tables 9 and 10 and Figures 3 and 5 of Meta Pseudo Labels, the feedback, and strangers"
    )
    for name in found:
        study, pipeline = load_study(name, ROOT / FOLDER)
        params = load_params(
            ROOT / "params.yaml" if pipeline == "noisy_student" else ROOT / FOLDER / pipeline / "params.yaml"
        )
        for arm in study.arms:
            changed = merged(params, merged(study.set, study.arms[arm].set))
            assert changed.keys() == params.keys()
            first = next(iter(study.arms))
            assert arm == first or study.arms[arm].measure or study.arms[arm] != study.arms[first]
            PredictConfig.model_validate(changed["predict"])
            for run in study.measured(arm):
                phases(train_config(changed, run, f"{name}: {arm}"))
                if run in changed["rounds"]:
                    select = select_config(changed, run, f"{name}: {arm}")
                    if "unfiltered" in arm:
                        assert (select.threshold, select.per_class, select.gate) == (0, "all", None)


# Tables 6, 7 and 8 of Meta Pseudo Labels: weight decay, label smoothing, rate, steps, warm-up steps, batch, dropout; then
# Pseudo-Label's threshold, UDA's factor and temperature, and of Table 8 the teacher's rate, dropout, UDA factor and temperature.
TABLES = {
    "cifar10": {
        "supervised": (0.0005, 0, 0.4, 50_000, 2_500, 1024, 0.4),
        "pseudo_label": (0.0005, 0, 0.4, 50_000, 2_500, 1024, 0.4, 0.95),
        "uda": (0.0005, 0, 0.3, 1_000_000, 5_000, 128, 0.5, 2.5, 0.7),
        "meta_pseudo_labels": (0.0005, 0.1, 0.3, 1_000_000, 2_000, 128, 0.35, 0.125, 0.5, 1.0, 0.8),
    },
    "svhn": {
        "supervised": (0.001, 0, 0.05, 50_000, 0, 128, 0.5),
        "pseudo_label": (0.001, 0, 0.05, 50_000, 0, 128, 0.5, 0.975),
        "uda": (0.0005, 0, 0.4, 1_000_000, 5_000, 128, 0.6, 1, 0.8),
        "meta_pseudo_labels": (0.0005, 0.1, 0.15, 1_000_000, 2_000, 128, 0.45, 0.05, 0.65, 2.5, 1.25),
    },
    "imagenet": {
        "supervised": (0.0002, 0.1, 1.28, 40_000, 2_000, 2048, 0.2),
        "pseudo_label": (0.0002, 0.1, 1.28, 40_000, 2_000, 2048, 0.2, 0.7),
        "uda": (0.0002, 0.1, 1.28, 500_000, 5_000, 2048, 0.25, 20, 0.7),
        "meta_pseudo_labels": (0.0002, 0.1, 0.8, 500_000, 1_000, 2048, 0.1, 0.5, 0.1, 16.0, 0.75),
    },
}
PLACES = {
    "cifar10": "cifar10_4k/paper.yaml",
    "svhn": "meta_pseudo_labels/svhn.yaml",
    "imagenet": "meta_pseudo_labels/paper.yaml",
}


def of_table(config: TrainConfig) -> tuple[float, ...]:
    """What Tables 6 to 8 have of every method."""
    assert config.steps is not None
    smoothing = config.algorithm.parameters.get("label_smoothing", 0)
    warmup = round(config.warmup * config.steps)
    return (
        config.weight_decay, smoothing, config.learning_rate, config.steps, warmup, config.batch_size,
        config.noise.dropout,
    )  # fmt: skip


@pytest.mark.parametrize("folder", PIPELINES, ids=lambda path: path.name)
def test_presets_say_at_which_step_feedback_is_taken(folder: Path) -> None:
    """A plain step with SGD, as the papers have it; the optimizer's own with others."""
    for path in sorted(set(folder.glob("*.yaml")) - {folder / "dvc.yaml", folder / "studies.yaml"}):
        params = load_params(path)
        for run in (*params.get("supervised", {}), *params.get("rounds", {})):
            config = train_config(params, run, "p")
            if config.algorithm.name.endswith("meta_pseudo_labels"):
                plain = config.optimizer in ("sgd", "momentum")
                assert config.algorithm.parameters["feedback_at"] == ("plain_step" if plain else "own_step"), run


def assert_small_images_are_noised_as_in_the_authors_code(config: TrainConfig) -> None:
    noise = config.noise
    assert (noise.shift, noise.cutout, noise.randaugment_magnitude) == (4 / 32, 16 / 32, 16)
    assert noise.probabilities == (0.2, 0.8)


@pytest.mark.parametrize("data", list(TABLES))
@pytest.mark.parametrize("method", ["supervised", "pseudo_label", "uda", "meta_pseudo_labels"])
def test_meta_pseudo_labels_tables(data: str, method: str) -> None:
    params = load_params(ROOT / "pipelines" / PLACES[data])
    run = "teacher" if method == "supervised" and data != "cifar10" else method
    config = train_config(params, run, "p")
    own = config.algorithm.parameters
    assert config.algorithm.name == method
    assert (config.model, config.optimizer, config.schedule) == (
        "resnet50" if data == "imagenet" else "wide_resnet28_2", "sgd", "cosine",
    )  # fmt: skip
    found = [*of_table(config)]
    if method == "pseudo_label":
        found += [own["threshold"]]
    if method == "uda":
        found += [own["factor"], own["temperature"]]
    if method == "meta_pseudo_labels":
        teacher = config.of_network("teacher")
        found += [teacher.learning_rate, teacher.noise.dropout, own["unlabeled_factor"], own["temperature"]]
        assert (own["feedback"], own["feedback_at"]) == ("cosine", "plain_step")
        finetune = phases(config)["finetune"]
        assert (finetune.learning_rate, finetune.schedule, finetune.batch_size) == (1e-5, "constant", 512)
        assert finetune.steps == (2000 if data == "imagenet" else 1000)
    assert tuple(found) == TABLES[data][method]
    policies = {"svhn": "svhn", "imagenet": "meta_pseudo_labels", "cifar10": "full"}
    assert config.noise.randaugment_policy == policies[data]
    if data == "imagenet":
        assert (config.noise.randaugment_magnitude, config.noise.probabilities) == (17, (0.2, 0.8))
    else:
        assert_small_images_are_noised_as_in_the_authors_code(config)
    assert config.unlabeled_ratio == (0 if method == "supervised" else 1)
