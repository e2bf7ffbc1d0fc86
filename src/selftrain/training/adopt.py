"""The stage ``adopt``: a model from elsewhere, or several averaged, as a run of this pipeline.

What is adopted is predicted with, evaluated, selected from and distilled like any run, though nothing is trained.
"""

import shutil
from pathlib import Path
from typing import Any

import timm
from torch import nn

from selftrain.networks.ensemble import Ensemble
from selftrain.networks.export import export_model
from selftrain.networks.models import check_model_name, create_model, load_model
from selftrain.params.adopted import AdoptedConfig
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.files import atomic_folder, sha256_of
from selftrain.plumbing.git import git_commit
from selftrain.plumbing.locks import WORK
from selftrain.plumbing.tracker import Tracker
from selftrain.plumbing.tracking import is_installed
from selftrain.tables.records import RunRecord


def adopt(name: str, config: AdoptedConfig, pipeline: str, classes: list[str], seed: int, out: Path) -> None:
    """Write ``out``, a timm model folder with ``run.json``.

    Each of ``config.models`` is a timm model folder, such as a run's, or the name of pretrained weights in timm. Raises
    UserError if one is something else, or has other classes than the corpus.
    """
    loaded = [_load(source, classes) for source in config.models]
    crop_fraction = max(record["pretrained_cfg"]["crop_pct"] for _, record in loaded)
    if len(loaded) == 1:
        model, config_json = loaded[0]
        options = config_json["model_args"]
    else:
        members = [_as_member(config_json, crop_fraction) for _, config_json in loaded]
        options = {"members": members, "weights": list(config.all_weights)}
        model = _ensemble([network for network, _ in loaded], options, len(classes))
    origins = [_origin(source) for source in config.models]
    commit = git_commit()
    with atomic_folder(out) as staged:
        export_model(
            model,
            staged,
            classes=classes,
            image_size=max(record["pretrained_cfg"]["input_size"][1] for _, record in loaded),
            crop_fraction=crop_fraction,
            options=options,
        )
        described: dict[str, Any] = {
            "run": name,
            "pipeline": pipeline,
            "mlflow_run_id": _mlflow_run(name, pipeline, config, commit),
            "algorithm": "adopt",
            "model": " + ".join(str(record["architecture"]) for _, record in loaded),
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "teacher": None,
            "teacher_weights": "",
            "members": origins,
            "saw": sorted({split for source in config.models for split in _saw(Path(source))}),
            "member_weights": list(config.all_weights),
            "git_commit": commit,
            "seed": seed,
            "data": {},
            "paths": {},
            "train_seconds": sum(origin["train_seconds"] for origin in origins),
            "weights": sha256_of(staged / "model.safetensors"),
        }
        RunRecord(**described).write(staged / "run.json")


def _ensemble(networks: list[nn.Module], options: dict[str, Any], num_classes: int) -> nn.Module:
    model = timm.create_model("ensemble", num_classes=num_classes, **options)
    assert isinstance(model, Ensemble)
    for member, network in zip(model.each, networks, strict=True):
        member.load_state_dict(network.state_dict())
    return model


def _mlflow_run(name: str, pipeline: str, config: AdoptedConfig, commit: str) -> str:
    """The id of a run of its own each time; "" where MLflow is not installed."""
    if not is_installed():
        return ""
    folder = WORK / "adopted" / pipeline / name
    shutil.rmtree(folder, ignore_errors=True)
    tags = {
        "pipeline": pipeline,
        "round": name,
        "algorithm": "adopt",
        "teacher": "",
        "mlflow.source.git.commit": commit,
    }
    params = {"models": ", ".join(config.models), "weights": ", ".join(map(str, config.all_weights))}
    tracker = Tracker(folder, name, tags, params, {})
    run_id = tracker.wait_for_run()
    tracker.finish("FINISHED")
    return run_id


def _load(source: str, classes: list[str]) -> tuple[nn.Module, dict[str, Any]]:
    """A model with its ``config.json``, or what would stand there."""
    folder = Path(source)
    if (folder / "config.json").is_file():
        model, config_json = load_model(folder)
        _check_classes(source, config_json.get("label_names"), int(config_json.get("num_classes", 1000)), classes)
        # timm knows what a config.json leaves out.
        return model, {"model_args": {}} | config_json | {"pretrained_cfg": _whole(model)}
    if folder.exists() or "/" in source:
        raise UserError(f"{source}: no timm model folder there (config.json and model.safetensors)")
    check_model_name(source, "models")
    if not timm.is_model_pretrained(source):
        raise UserError(f"{source}: timm has no pretrained weights of this name, and there is no such folder")
    data = timm.get_pretrained_cfg(source)
    assert data is not None
    _check_classes(source, None, data.num_classes, classes)
    model = create_model(source, len(classes), data.input_size[1], weights="timm")
    config_json = {"architecture": source.partition(".")[0], "model_args": {}, "pretrained_cfg": _whole(model)}
    return model.eval(), config_json


def _whole(model: Any) -> dict[str, Any]:
    return {"crop_pct": 1.0} | dict(model.pretrained_cfg)


def _imagenets(count: int) -> list[str] | None:
    """ImageNet's classes as WordNet's ids, if one of its sets has so many."""
    from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset({"num_classes": count})
    return None if subset is None else list(ImageNetInfo(subset).label_names())  # type: ignore[no-untyped-call]


def _check_classes(source: str, names: list[str] | None, count: int, classes: list[str]) -> None:
    names = names or _imagenets(count)
    if names is None and count == len(classes):
        raise UserError(
            f"{source}: does not say which {count} classes it knows; put their names, in the order of its outputs, "
            f'into its config.json: "label_names": ["{classes[0]}", …]'
        )
    if names is None:
        raise UserError(f"{source}: knows {count} classes, the corpus has {len(classes)}; a teacher has to share them")
    if sorted(names) != sorted(classes):
        strangers = sorted(set(classes) - set(names)) or sorted(set(names) - set(classes))
        raise UserError(
            f"{source}: its {len(names)} classes are not the corpus's {len(classes)}: '{strangers[0]}' is in one of "
            "them only; a teacher has to share them all"
        )
    if names != classes:
        raise UserError(f"{source}: has the corpus's classes in another order; train or export it again in that order")


def _as_member(config_json: dict[str, Any], crop_fraction: float) -> dict[str, Any]:
    """A member of an ensemble that is shown ``crop_fraction`` of an image's shorter side."""
    data = config_json["pretrained_cfg"]
    return {
        "architecture": config_json["architecture"],
        "options": config_json["model_args"],
        "mean": list(data["mean"]),
        "std": list(data["std"]),
        "size": data["input_size"][1],
        "crop": data["crop_pct"] / crop_fraction,
    }


def _saw(folder: Path) -> set[str]:
    """The splits that a run's model and its chain of teachers were trained on, where they are not the usual ones."""
    if not (folder / "run.json").is_file():
        return set()
    record = RunRecord.read(folder / "run.json")
    teacher = record.paths.get("teacher")
    return record.splits_seen | (_saw(Path(teacher)) if teacher else set())


def _origin(source: str) -> dict[str, Any]:
    """What is known of where a model came from."""
    folder = Path(source)
    weights = folder / "model.safetensors"
    record = RunRecord.read(folder / "run.json") if (folder / "run.json").is_file() else None
    return {
        "path": source,
        "run": record and record.run,
        "mlflow_run_id": record and record.mlflow_run_id,
        "train_seconds": record.train_seconds if record else 0.0,
        "weights": sha256_of(weights) if weights.is_file() else "",
    }
