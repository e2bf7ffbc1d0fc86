from pathlib import Path

import pytest

from selftrain.params.ingest import IngestConfig
from selftrain.params.predict import PredictConfig
from selftrain.params.runs import chain_of, train_config
from selftrain.params.train import TrainConfig, phases
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.sections import load_params, load_seed, merged, parse_section

TRAIN = {
    "algorithm": {"name": "supervised"},
    "model": "test_resnet",
    "image_size": 32,
    "batch_size": 8,
    "learning_rate": 0.1,
    "steps": 3,
}


def test_unknown_keys_are_named_with_a_suggestion() -> None:
    with pytest.raises(UserError, match=r"params.yaml: train.stepz: unknown parameter; did you mean 'steps'\?"):
        parse_section(TRAIN | {"stepz": 3}, TrainConfig, "params.yaml: train")
    with pytest.raises(UserError, match=r"train.noise.dropuot: unknown parameter; did you mean 'dropout'\?"):
        parse_section(TRAIN | {"noise": {"dropuot": 0.1}}, TrainConfig, "train")


def test_wrong_values_are_named_with_what_was_given() -> None:
    with pytest.raises(UserError, match=r"train.batch_size: .*greater than or equal to 1 \(got 0\)"):
        parse_section(TRAIN | {"batch_size": 0}, TrainConfig, "train")
    with pytest.raises(UserError, match="train.model: missing"):
        parse_section({key: value for key, value in TRAIN.items() if key != "model"}, TrainConfig, "train")
    with pytest.raises(UserError, match="give either `steps` or `epochs`"):
        parse_section(TRAIN | {"epochs": 2}, TrainConfig, "train")


def test_sections_are_frozen() -> None:
    config = parse_section(TRAIN, TrainConfig, "train")
    with pytest.raises(ValueError, match="frozen"):
        config.steps = 5


def test_epochs_count_labeled_images() -> None:
    config = parse_section({**TRAIN, "steps": None, "epochs": 2.5, "unlabeled_ratio": 7}, TrainConfig, "train")
    assert config.total_steps(steps_per_epoch=10) == 25


@pytest.mark.parametrize(
    ("teachers", "chain"),
    [
        ({"c": "b", "b": "a", "a": None, "d": "b"}, ["c", "b", "a"]),
        ({"c": "gone"}, ["c", "gone"]),
        ({"c": "b", "b": "a", "a": "b"}, ["c", "b", "a"]),
        ({"c": "c"}, ["c"]),
        ({}, ["c"]),
    ],
)
def test_a_chain_of_teachers_ends_though_it_is_a_circle(teachers: dict[str, str | None], chain: list[str]) -> None:
    assert chain_of("c", teachers) == chain


def test_later_phases_are_the_run_with_changes() -> None:
    changes = {"tune": {"algorithm": {"name": "supervised"}, "epochs": 1.5, "image_size": 64, "frozen": 0.8}}
    own = {"algorithm": {"name": "noisy_student", "labels": "hard"}, "unlabeled_ratio": 5, "learning_rate": 0.5}
    config = train_config({"train": TRAIN, "rounds": {"s1": {"train": {**own, "then": changes}}}}, "s1", "p")
    found = phases(config)
    assert list(found) == ["main", "tune"]
    assert found["main"] is config
    tune = found["tune"]
    assert (tune.algorithm.name, tune.algorithm.parameters, tune.unlabeled_ratio) == ("supervised", {}, 0)
    assert (tune.steps, tune.epochs, tune.image_size, tune.frozen) == (None, 1.5, 64, 0.8)
    assert (tune.model, tune.learning_rate, tune.then) == (config.model, 0.5, {})


def test_parameters_belong_to_the_algorithm_that_they_were_set_for() -> None:
    default = TRAIN | {"algorithm": {"name": "pseudo_label", "threshold": 0.6, "factor": 3}}

    def algorithm(own: dict[str, object]) -> dict[str, object]:
        made = train_config({"train": default, "rounds": {"s1": {"train": {"algorithm": own}}}}, "s1", "p").algorithm
        return {"name": made.name} | made.parameters

    assert algorithm({"name": "fixmatch"}) == {"name": "fixmatch"}
    assert algorithm({"name": "pseudo_label", "factor": 1}) == {"name": "pseudo_label", "threshold": 0.6, "factor": 1}
    assert algorithm({"threshold": 0.7}) == {"name": "pseudo_label", "threshold": 0.7, "factor": 3}


def test_what_would_have_no_effect_is_refused() -> None:
    with pytest.raises(UserError, match="set `ema_decay` too"):
        parse_section(TRAIN | {"ema_first": {"decay": 0.9, "steps": 5}}, TrainConfig, "train")
    with pytest.raises(UserError, match="`weak_augmentation` is a student's"):
        parse_section({"noise": ["weak_augmentation"]}, PredictConfig, "predict")


def test_what_an_algorithm_makes_has_no_layers_for_the_runs_decay() -> None:
    config = parse_section(TRAIN | {"layer_decay": 0.8, "networks": {"b": {"layer_decay": 0.5}}}, TrainConfig, "train")
    assert [config.of_network(name, made=True).layer_decay for name in ("a", "b")] == [None, 0.5]
    assert config.of_network("a").layer_decay == 0.8


@pytest.mark.parametrize(
    ("then", "message"),
    [
        ({"tune": {"epochs": 1, "image_sise": 64}}, r"p: rounds.s1.train.then.tune.image_sise: unknown parameter"),
        ({"tune": {}}, r"then.tune: give either `steps` or `epochs`"),
        ({"main": {"steps": 1}}, r"then.main: cannot name a phase"),
        ({"tune": {"steps": 1, "init": "teacher"}}, r"then.tune.init: a later phase goes on with the run's"),
        ({"tune": {"steps": 1, "model": "resnet18"}}, r"then.tune.model: a later phase goes on with the run's"),
        ({"tune": {"steps": 1, "schedule_from": 3}}, r"`schedule_from` goes on with a `step` schedule"),
    ],
)
def test_mistakes_in_later_phases_are_named(then: dict[str, dict[str, object]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        train_config({"train": TRAIN, "rounds": {"s1": {"train": {"then": then}}}}, "s1", "p")


def test_the_learning_rate_is_scaled_linearly_with_the_batch() -> None:
    values = TRAIN | {"learning_rate": 0.128, "batch_size": 512}
    assert parse_section(values, TrainConfig, "train").scaled_learning_rate == 0.128
    scaled = parse_section(values | {"learning_rate_batch": 2048}, TrainConfig, "train")
    assert scaled.scaled_learning_rate == pytest.approx(0.032)


def test_merged_overlays_mappings_and_changes_neither() -> None:
    defaults, own = {"a": 1, "noise": {"x": 1, "y": 2}}, {"noise": {"y": 3}, "b": [4]}
    assert merged(defaults, own) == {"a": 1, "noise": {"x": 1, "y": 3}, "b": [4]}
    assert defaults == {"a": 1, "noise": {"x": 1, "y": 2}}
    assert merged(None, None) == {}


def test_runs_overlay_the_defaults() -> None:
    params = {"train": TRAIN, "rounds": {"s1": {"train": {"steps": 9}}}}
    assert train_config(params, "s1", "p").steps == 9
    with pytest.raises(UserError, match="there is no run 's2'; known: s1"):
        train_config(params, "s2", "p")


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [1", "not valid YAML"), ("- 1", "expected a mapping"), ("a: 1\na: 2", "not valid YAML")],
)
def test_files_that_are_no_params(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        load_params(path)
    with pytest.raises(UserError, match="no such file"):
        load_params(tmp_path / "other.yaml")


@pytest.mark.parametrize("seed", [-1, 2**31, "1", True, 0.5])
def test_seeds_are_whole_numbers(seed: object) -> None:
    with pytest.raises(UserError, match="seed"):
        load_seed({"seed": seed}, Path("p"))


def test_a_source_is_paths_or_a_cut() -> None:
    cut = {"cut_from": "labeled", "share": 0.1}
    base = {"root": "r", "labeled": {"images": "a"}, "unlabeled": {"images": ["b", "c"]}, "test": cut}
    config = parse_section(base | {"validation": cut}, IngestConfig, "ingest")
    assert config.labeled.images == ["a"]
    assert config.unlabeled.images == ["b", "c"]
    for wrong in ({}, {"images": "a", **cut}, {"cut_from": "labeled"}, {"cut_from": "unlabeled", "share": 0.1}):
        with pytest.raises(UserError, match=r"ingest\.validation"):
            parse_section(base | {"validation": wrong}, IngestConfig, "ingest")


@pytest.mark.parametrize("key", ["learning-rate", "int", "a b", "ü", "0"])
def test_unknown_keys_may_be_any_text(key: str) -> None:
    with pytest.raises(UserError, match=f"train.{key}: unknown parameter"):
        parse_section(TRAIN | {key: 1}, TrainConfig, "train")


def test_other_networks_are_the_student_with_changes() -> None:
    params = {"train": TRAIN, "supervised": {"r": {"train": {"networks": {"teacher": {"learning_rate": 0.5}}}}}}
    config = train_config(params, "r", "p")
    assert config.of_network("student") is config
    teacher = config.of_network("teacher")
    assert (teacher.learning_rate, teacher.model, teacher.noise) == (0.5, config.model, config.noise)
    assert train_config(params, "r", "p").model_copy(update={"frozen": 0.5}).of_network("teacher").frozen == 0
    config = config.model_copy(update={"networks": {"teacher": {"noise": {"dropout": 0.4}}}})
    assert config.of_network("teacher").noise == config.noise.model_copy(update={"dropout": 0.4})


@pytest.mark.parametrize(
    ("networks", "message"),
    [
        (
            {"teacher": {"learning_rat": 1}},
            "networks.teacher.learning_rat: not a network's own; did you mean 'learning",
        ),
        ({"teacher": {"noise": {"randaugment_ops": 0}}}, "networks.teacher.noise.randaugment_ops: not a network's own"),
        ({"teacher": {"batch_size": 4}}, "networks.teacher.batch_size: not a network's own"),
        ({"teacher": {"learning_rate": -1}}, r"networks.teacher.learning_rate: .*greater than 0"),
    ],
)
def test_mistakes_in_other_networks_are_named(networks: dict[str, dict[str, object]], message: str) -> None:
    params = {"train": TRAIN, "supervised": {"r": {"train": {"networks": networks}}}}
    with pytest.raises(UserError, match=message):
        train_config(params, "r", "p")


def test_later_phases_by_other_algorithms_have_the_student_alone() -> None:
    config = TrainConfig.model_validate(
        TRAIN
        | {
            "algorithm": {"name": "meta_pseudo_labels"},
            "networks": {"teacher": {"learning_rate": 0.5}},
            "pool": "labeled",
            "then": {"finetune": {"algorithm": {"name": "supervised"}, "steps": 2}, "on": {"steps": 3}},
        }
    )
    finetune, on = list(phases(config).values())[1:]
    assert (finetune.networks, finetune.pool) == ({}, "selection")
    assert (on.networks, on.pool) == (config.networks, "labeled")


def test_the_last_result_knows_no_patience() -> None:
    with pytest.raises(ValueError, match="patience"):
        TrainConfig.model_validate(TRAIN | {"result": "last", "patience": 3})


def test_a_source_has_one_augmentation() -> None:
    with pytest.raises(ValueError, match="exclude each other"):
        TrainConfig.model_validate(TRAIN | {"noise": {"on_labeled": ["augmentation", "weak_augmentation"]}})


def test_options_belong_to_the_optimizer_that_they_were_set_for() -> None:
    base = {
        "algorithm": {"name": "supervised"}, "model": "test_resnet", "image_size": 32, "batch_size": 4, "steps": 5,
        "learning_rate": 0.1, "optimizer": "rmsproptf", "optimizer_options": {"alpha": 0.9},
    }  # fmt: skip
    later = {"steps": 2, "optimizer": "lars"}
    config = TrainConfig.model_validate(base | {"then": {"more": later, "same": {"steps": 2}}})
    assert phases(config)["more"].optimizer_options == {}
    assert phases(config)["same"].optimizer_options == {"alpha": 0.9}
    teacher = config.model_copy(update={"networks": {"teacher": {"optimizer": "sgd"}}}).of_network("teacher")
    assert teacher.optimizer_options == {}
    run = {"train": base, "supervised": {"a": {"train": {"optimizer": "sgd"}}, "b": {"train": {"learning_rate": 1}}}}
    assert train_config(run, "a", "p").optimizer_options == {}
    assert train_config(run, "b", "p").optimizer_options == {"alpha": 0.9}
