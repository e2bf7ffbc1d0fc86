"""The sections of params.yaml that describe a training."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from selftrain.config import Section, did_you_mean, merged, parse_overlaid, parse_section
from selftrain.corpus.keys import SPLITS
from selftrain.errors import UserError


class AlgorithmChoice(BaseModel):
    """Which algorithm, and its own parameters, which its own file declares and checks."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")

    @property
    def parameters(self) -> dict[str, Any]:
        """Everything but the name."""
        return dict(self.model_extra or {})


Share = Annotated[float, Field(gt=0, le=1)]
Noise = Literal["augmentation", "weak_augmentation", "stochastic_depth", "dropout"]
ALL_NOISE: tuple[Noise, ...] = ("augmentation", "stochastic_depth", "dropout")


class NoiseConfig(Section):
    """``train.noise``: what makes the student's work harder than the teacher's."""

    on_labeled: tuple[Noise, ...] = ALL_NOISE
    """Noises that labeled images get, of those below; ``augmentation`` is crop, shift, flip and RandAugment,
    ``weak_augmentation`` is these without RandAugment."""
    on_unlabeled: tuple[Noise, ...] = ALL_NOISE
    """Noises that unlabeled images get: Table 6 of Noisy Student takes them away one by one."""
    on_device: bool = False
    """Whether shift, flip and RandAugment are done by the GPU, a batch at a time, instead of by the loader's workers;
    the pixels differ by rounding."""
    random_crop: tuple[Share, Share] | None = None
    """Range of the area's share that a random resized crop keeps; null: the image as prediction sees it."""
    shift: float = Field(default=0.0, ge=0, lt=0.5)
    """Share of the width and height by which the image is moved at most, its edges mirrored."""
    flip: float = Field(default=0.5, ge=0, le=1)
    """Probability of a horizontal flip."""
    randaugment_ops: int = Field(default=2, ge=0)
    randaugment_magnitude: float = Field(default=9, ge=0, le=30)
    """10 is the full strength of AutoAugment's ranges; the paper's 27 goes beyond them, as its code does."""
    randaugment_policy: Literal["full", "svhn"] = "full"
    """``svhn`` leaves out what turns one digit into another: rotation and horizontal translation."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """On the last layer."""
    stochastic_depth: float = Field(default=0.0, ge=0, lt=1)
    """Drop probability of the last block, falling linearly to the first."""

    def on(self, source: str) -> tuple[Noise, ...]:
        """The noises of a batch's source: ``labeled``, ``unlabeled`` with whatever follows; others have none."""
        if source == "labeled":
            return self.on_labeled
        return self.on_unlabeled if source.startswith("unlabeled") else ()

    @model_validator(mode="after")
    def _one_augmentation(self) -> "NoiseConfig":
        for names in (self.on_labeled, self.on_unlabeled):
            if {"augmentation", "weak_augmentation"} <= set(names):
                raise ValueError("`augmentation` and `weak_augmentation` exclude each other")
        return self

    @model_validator(mode="after")
    def _crop_in_order(self) -> "NoiseConfig":
        if self.random_crop is not None and self.random_crop[0] > self.random_crop[1]:
            raise ValueError("`random_crop` is [smallest, largest] share of the area")
        return self


class Resplit(Section):
    """``train.resplit``: labeled images cut anew for one run, by the seed and class by class."""

    splits: tuple[str, ...]
    """What is thrown together. A run that sees ``test`` cannot be measured on it, and its stage has to list that split
    among its dependencies."""
    validation: float = Field(gt=0, lt=1)
    """Share held out for validation; the rest is trained on."""

    @model_validator(mode="after")
    def _labeled_splits(self) -> "Resplit":
        known = [split for split in SPLITS if split != "unlabeled"]
        if not self.splits or set(self.splits) - set(known) or len(set(self.splits)) < len(self.splits):
            raise ValueError(f"`splits` is a list of some of {', '.join(known)}")
        return self


NETWORK_PARAMETERS = (
    "model", "model_options", "pretrained", "init", "optimizer", "optimizer_options", "learning_rate",
    "learning_rate_batch", "weight_decay", "schedule", "decay_rate", "decay_epochs", "warmup", "clip_grad", "frozen",
    "noise",
)  # fmt: skip
"""What a network beside the student may have of its own."""
NETWORK_NOISE = ("noise.dropout", "noise.stochastic_depth", "noise.on_labeled", "noise.on_unlabeled")


class TrainConfig(Section):
    """``train``: one training. Runs overlay this section with their own ``train``."""

    algorithm: AlgorithmChoice
    model: str
    """Any timm model name."""
    model_options: dict[str, Any] = {}
    """More of the model's own arguments in timm, such as ``channels: [8, 16, 16, 32]`` of a small ``test_resnet``; they
    are written beside the weights. Whoever names another model names its options too."""
    pretrained: bool = False
    """Start from the weights that timm has for the model."""
    init: Literal["scratch", "teacher"] = "scratch"
    """``teacher``: start from the teacher's weights; the model must be the teacher's."""
    networks: dict[str, dict[str, Any]] = {}
    """What an algorithm's other networks have otherwise than the student, by name: a ``teacher``'s ``learning_rate``,
    its ``noise: {dropout: …}``; of ``noise`` only what is inside a network is its own."""
    pool: Literal["selection", "labeled"] = "selection"
    """What is trained on as unlabeled: the round's selection, or the labeled images (Meta Pseudo Labels as a
    regularizer, its Table 9), where algorithms that read a teacher's opinion find their labels."""
    resplit: Resplit | None = None
    """Train on a cut of one's own instead of on ``labeled``, validated on the rest of it."""
    image_size: int = Field(ge=8)
    crop_fraction: float = Field(default=1.0, gt=0, le=1)
    """Share of the shorter side that the centre crop of a clean image keeps."""
    batch_size: int = Field(ge=1)
    """Labeled images a step, over all processes."""
    unlabeled_ratio: int = Field(default=0, ge=0)
    """Unlabeled images a step for each labeled one."""
    steps: int | None = Field(default=None, ge=1)
    epochs: float | None = Field(default=None, gt=0)
    """Instead of ``steps``: passes over the labeled images, or, where none are trained on, over the selected ones."""
    optimizer: str = "adamw"
    """Any timm optimizer name."""
    optimizer_options: dict[str, Any] = {}
    """More of the optimizer's own arguments, such as ``eps``."""
    learning_rate: float = Field(gt=0)
    learning_rate_batch: int | None = Field(default=None, ge=1)
    """The ``batch_size`` that ``learning_rate`` is meant for; at another it is scaled linearly. Null: not scaled."""
    weight_decay: float = Field(default=0.05, ge=0)
    schedule: Literal["cosine", "constant", "step"] = "cosine"
    """``step``: times ``decay_rate`` every ``decay_epochs`` epochs."""
    decay_rate: float = Field(default=0.97, gt=0, le=1)
    decay_epochs: float = Field(default=2.4, gt=0)
    schedule_from: float = Field(default=0.0, ge=0)
    """Epochs of the schedule that lie before this phase: a later phase that goes on with the schedule of the first."""
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps in which the learning rate rises from zero."""
    clip_grad: float | None = Field(default=None, gt=0)
    """Largest gradient norm."""
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    """Decay of the weights' moving average, which is then what is evaluated and exported."""
    frozen: float = Field(default=0.0, ge=0, le=1)
    """Share of the layers, counted from the input, that are not trained; 1 leaves the classifier alone."""
    noise: NoiseConfig = NoiseConfig()
    validate_every: int = Field(default=50, ge=1)
    """Steps between validations."""
    result: Literal["best", "last"] = "best"
    """Which weights are exported: the best on validation, or the last, as papers without a validation split do."""
    patience: int | None = Field(default=None, ge=1)
    """Validations in a row without a better one after which training stops; null: never."""
    then: dict[str, dict[str, Any]] = {}
    """Later phases by name: what each has otherwise than the run; how long it is (``steps`` or ``epochs``,
    ``patience``) each says itself. It starts from the best weights of the phase before, with a new optimizer."""

    @model_validator(mode="after")
    def _one_length(self) -> "TrainConfig":
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either `steps` or `epochs`")
        if self.result == "last" and self.patience is not None:
            raise ValueError("`patience` waits for a best result; with `result: last` there is none")
        if self.schedule_from and self.schedule != "step":
            raise ValueError("`schedule_from` goes on with a `step` schedule; others end with their phase")
        return self

    def of_network(self, name: str) -> "TrainConfig":
        """This training as one of its networks is trained: ``networks`` laid over it. Only the student is ``frozen`` by
        the run's own word.
        """
        if name == "student":
            return self
        changes = {"frozen": 0.0, "init": "scratch"} | self.networks.get(name, {})
        own = self.model_dump(mode="json")
        return TrainConfig.model_validate(merged(without(own, "model_options") if "model" in changes else own, changes))

    @property
    def scaled_learning_rate(self) -> float:
        """``learning_rate`` at this ``batch_size``."""
        return self.learning_rate * self.batch_size / (self.learning_rate_batch or self.batch_size)

    def total_steps(self, steps_per_epoch: float) -> int:
        """Optimizer steps of the whole phase."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return max(1, round(self.epochs * steps_per_epoch))


class RunConfig(Section):
    """A run's entry under ``supervised`` or ``rounds``."""

    teacher: str | None = None
    select: dict[str, Any] = {}
    train: dict[str, Any] = {}


ADOPTED = ("teachers", "ensembles", "pretrained")
"""Runs that are taken as they are, see ``adopted_config.py``: three sections for the same, since DVC has to be told on
which folders a stage depends: one, two or none."""
RUN_SECTIONS = (*ADOPTED, "supervised", "rounds")
RUN_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
"""Run names become folders, shell words and FiftyOne fields."""
RESERVED = (
    "best", "robustness", "out_of_domain", "embeddings", "id", "key", "filepath", "tags", "metadata", "split", "source",
    "truth", "corrected", "history", "pair", "repeats", "uniqueness", "hardness", "mistakenness",
)  # fmt: skip
"""Names of folders and FiftyOne fields that are something else."""


def all_runs(params: Mapping[str, Any], params_path: str) -> dict[str, str]:
    """Every run's name and its section, in the file's order. Raises UserError for what cannot be a run."""
    runs: dict[str, str] = {}
    for section in RUN_SECTIONS:
        entries = params.get(section) or {}
        if not isinstance(entries, Mapping):
            raise UserError(f"{params_path}: {section}: expected a mapping of runs, found {entries!r}")
        for name in entries:
            if not isinstance(name, str) or not RUN_NAME.fullmatch(name) or name in RESERVED:
                hint = "it means something else" if name in RESERVED else "use letters, digits and _, a letter first"
                raise UserError(f"{params_path}: {section}: {name!r} cannot name a run; {hint}")
            if name in runs:
                raise UserError(f"{params_path}: '{name}' is a run in both `{runs[name]}` and `{section}`; rename one")
            runs[name] = section
    return runs


def run_entry(params: Mapping[str, Any], run: str, params_path: str) -> tuple[RunConfig, str]:
    """A run's own entry and its place in the params file. Raises UserError naming the runs there are."""
    runs = all_runs(params, params_path)
    if run not in runs:
        raise UserError(f"{params_path}: there is no run '{run}'; {did_you_mean(run, list(runs))}")
    where = f"{params_path}: {runs[run]}.{run}"
    return parse_section(params[runs[run]][run], RunConfig, where), where


def train_config(params: dict[str, Any], run: str, params_path: str) -> TrainConfig:
    """The run's training parameters: ``train``, overlaid with the run's own ``train``."""
    entry, where = run_entry(params, run, params_path)
    defaults = params.get("train")
    if isinstance(defaults, Mapping) and {"steps", "epochs"} & entry.train.keys():
        # A run that says how long it is says it all.
        defaults = without(dict(defaults), "steps", "epochs")
    if isinstance(defaults, Mapping) and "model" in entry.train:
        defaults = without(dict(defaults), "model_options")
    config = parse_overlaid(defaults, entry.train, TrainConfig, f"{params_path}: train", f"{where}.train")
    for phase, each in phases(config, f"{where}.train").items():
        check_networks(each, f"{where}.train" if phase == MAIN_PHASE else f"{where}.train.then.{phase}")
    return config


MAIN_PHASE = "main"


def phases(config: TrainConfig, where: str = "train") -> dict[str, TrainConfig]:
    """A training's phases by name: ``main``, then those of ``then``, each whole. Raises UserError naming the phase."""
    own = config.model_dump(mode="json", exclude_unset=True, exclude={"then", "steps", "epochs", "patience", "init"})
    found = {MAIN_PHASE: config}
    for name, changes in config.then.items():
        place = f"{where}.then.{name}"
        if not RUN_NAME.fullmatch(name) or name == MAIN_PHASE:
            raise UserError(f"{place}: cannot name a phase; use letters, digits and _, a letter first")
        for own_alone in ("then", "init", "pretrained", "model", "model_options", "resplit"):
            if own_alone in changes:
                raise UserError(f"{place}.{own_alone}: a later phase goes on with the run's; set it on the run itself")
        base = own if "algorithm" not in changes else without(own, "algorithm", "unlabeled_ratio", "networks", "pool")
        found[name] = parse_section(merged(base, changes), TrainConfig, place)
    return found


def check_networks(config: TrainConfig, where: str) -> None:
    """Raises UserError for what a network cannot have of its own."""
    for name, changes in config.networks.items():
        place = f"{where}.networks.{name}"
        noise = changes.get("noise")
        for key, known in [
            *((key, NETWORK_PARAMETERS) for key in changes),
            *((f"noise.{key}", NETWORK_NOISE) for key in (noise if isinstance(noise, Mapping) else ())),
        ]:
            if key not in known:
                raise UserError(f"{place}.{key}: not a network's own; {did_you_mean(key, list(known))}")
        parse_section(merged(config.model_dump(mode="json"), changes), TrainConfig, place)


def without(values: dict[str, Any], *names: str) -> dict[str, Any]:
    """A mapping less some of its keys."""
    return {key: value for key, value in values.items() if key not in names}
