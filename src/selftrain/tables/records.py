"""``run.json`` and ``metrics.json``: what a run was made from, and its figures, as types.

A figure that a run does not have (a teacher has no coverage) is not in the file, and None here. Records are read like
mappings too, since figures are asked for by name.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from selftrain.plumbing.errors import UserError
from selftrain.plumbing.files import read_json, sha256_of, write_json

WEIGHTS = "weights"
"""In a run's ``data`` and ``paths``: the file that its network started from; of its other networks, with their names
behind."""


class Record(BaseModel):
    """A file of named values. Unknown names are errors, instances are immutable."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a record. Raises UserError if the file is missing, damaged, or of another version."""
        values = read_json(path, "dvc repro")
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise UserError(f"{path}: {where}: {first['msg']}; another version made it, so run `dvc repro`") from None

    def write(self, path: Path) -> None:
        """Write the values that are set, in the order of the fields."""
        write_json(path, self.as_dict())

    def as_dict(self) -> dict[str, Any]:
        """The values that are set."""
        return self.model_dump(exclude_unset=True)

    def __getitem__(self, name: str) -> Any:
        if name not in self.model_fields_set:
            raise KeyError(name)
        return getattr(self, name)

    def __contains__(self, name: object) -> bool:
        return name in self.model_fields_set

    def get(self, name: str, default: Any = None) -> Any:
        """A value by name, or the default where it is not set."""
        return getattr(self, name) if name in self.model_fields_set else default

    def set_items(self) -> Iterator[tuple[str, Any]]:
        """(name, value) of the values that are set."""
        return ((name, getattr(self, name)) for name in type(self).model_fields if name in self.model_fields_set)


class RunRecord(Record):
    """``run.json`` of a model folder: where the model comes from."""

    run: str
    pipeline: str = ""
    mlflow_run_id: str = ""
    """Empty where the training was not tracked."""
    algorithm: str = ""
    """``adopt`` for a model from elsewhere."""
    model: str = ""
    parameters: int = 0
    teacher: str | None = None
    teacher_parameters: int | None = None
    teacher_mlflow_run_id: str | None = None
    teacher_weights: str = ""
    members: list[dict[str, Any]] = []
    """Of an adopted model: what it was made of."""
    saw: list[str] = []
    """Of an adopted model: splits that it or its teachers were trained on, beside the usual ones."""
    member_weights: list[float] = []
    git_commit: str = ""
    seed: int = 0
    data: dict[str, str] = {}
    """Digests of what was read, by name."""
    paths: dict[str, str] = {}
    """Where that lay."""
    train: dict[str, Any] | None = None
    """The training's parameters."""
    steps: int = 0
    phases: list[dict[str, Any]] = []
    validation_accuracy: float = 0.0
    temperature: float = 1.0
    """What the exported classifier was divided by, so that its confidences are those of unseen images."""
    learns_from_table: bool = True
    """False for algorithms that label the pool themselves."""
    peak_memory_mib: int = 0
    train_seconds: float = 0.0
    weights: str = ""
    """The sha256 of model.safetensors."""

    @property
    def splits_seen(self) -> set[str]:
        """Splits that it, or what it was adopted from, was trained on, where they are not the usual ones."""
        return {*((self.train or {}).get("resplit") or {"splits": []})["splits"], *self.saw}


class EvaluatedRecord(RunRecord):
    """``details/run.json`` of an evaluation: the same, with what was found of the classes."""

    classes: list[str] = []
    per_class_accuracy: dict[str, float] = {}
    """Share of each class's test images that is right; NaN for a class without test images."""
    tables: dict[str, str] = {}
    """Digests of the tables that were evaluated."""
    without_pseudo_labels: list[str] = []
    """Classes that the round has no pseudo-label of."""


class TestedRecord(RunRecord):
    """``run.json`` of robustness tables."""

    robustness_size: int = 0
    """Pixels a side at which images were corrupted."""


class Metrics(Record):
    """``metrics.json`` of an evaluation; shares are 0–1, intervals 95%."""

    test_accuracy: float = 0.0
    test_accuracy_low: float = 0.0
    test_accuracy_high: float = 0.0
    test_top5: float = 0.0
    test_precision_at_1: float | None = None
    """Share of the test images with several labels, where there are such, whose likeliest class is one of them."""
    test_multi_labeled: int | None = None
    test_nll: float = 0.0
    test_calibration_error: float = 0.0
    validation_accuracy: float = 0.0
    validation_accuracy_low: float = 0.0
    validation_accuracy_high: float = 0.0
    validation_top5: float = 0.0
    validation_nll: float = 0.0
    validation_calibration_error: float = 0.0
    temperature: float = 1.0
    """That fits the validation split."""
    test_calibration_error_scaled: float = 0.0
    """At that temperature."""
    train_seconds: float = 0.0
    validation_gain: float | None = None
    """Over the teacher, with its interval; the figures from here on are those of rounds."""
    validation_gain_low: float | None = None
    validation_gain_high: float | None = None
    gained_on_teacher: int | None = None
    lost_to_teacher: int | None = None
    mcnemar_p: float | None = None
    flipped: int | None = None
    """Unlabeled images that it labels otherwise than its teacher."""
    coverage: float | None = None
    kept: int | None = None
    balanced: int | None = None
    pseudo_label_accuracy: float | None = None
    """Where hidden truth is known, as the next two."""
    out_of_domain_kept: int | None = None
    pseudo_label_accuracy_unfiltered: float | None = None
    threshold: float | None = None
    per_class_quota: int | None = None
    decisions: dict[str, int] | None = None
    classes_without_pseudo_labels: int | None = None
    expected_precision: float | None = None
    expected_precision_low: float | None = None
    expected_precision_high: float | None = None
    target_precision: float | None = None
    recommended_threshold: float | None = None
    recommended_coverage: float | None = None
    recommended_precision: float | None = None
    recommended_precision_low: float | None = None
    recommended_precision_high: float | None = None
    recommended_precision_true: float | None = None


def label_names(model_folder: Path) -> list[str]:
    """The names of a model's classes. Raises UserError for a folder that names none, such as timm's own."""
    path = model_folder / "config.json"
    names = read_json(path, "dvc repro").get("label_names")
    if not isinstance(names, list):
        raise UserError(f"{path}: names no classes (`label_names`); put the model under `teachers` as a run of its own")
    return names


def check_weights(model_folder: Path) -> str:
    """The sha256 of a model's weights. Raises UserError if they are not those that its ``run.json`` tells of."""
    weights, record = sha256_of(model_folder / "model.safetensors"), model_folder / "run.json"
    recorded = RunRecord.read(record).weights if record.is_file() else ""
    if recorded not in ("", weights):
        raise UserError(
            f"{model_folder / 'model.safetensors'}: not the weights that {record} tells of; restore the folder with "
            "`dvc checkout`, or train the run again"
        )
    return weights
