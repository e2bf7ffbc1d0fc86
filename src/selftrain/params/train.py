"""The sections of params.yaml that describe a training."""

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from selftrain.params.noise import NoiseConfig
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.sections import MODULE_NAME, Section, did_you_mean, merged, parse_section
from selftrain.tables.keys import LABELED_SPLITS


class AlgorithmChoice(BaseModel):
    """Which algorithm, and its own parameters, which its own file declares and checks."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str = Field(pattern=MODULE_NAME)

    @property
    def parameters(self) -> dict[str, Any]:
        """Everything but the name."""
        return dict(self.model_extra or {})


class Resplit(Section):
    """``train.resplit``: labeled images cut anew for one run, by the seed and class by class."""

    splits: tuple[str, ...]
    """What is thrown together. A run that sees ``test`` cannot be measured on it, and its stage has to list that split
    among its dependencies."""
    validation: float = Field(gt=0, lt=1)
    """Share held out for validation; the rest is trained on."""

    @model_validator(mode="after")
    def _labeled_splits(self) -> "Resplit":
        if not self.splits or set(self.splits) - set(LABELED_SPLITS) or len(set(self.splits)) < len(self.splits):
            raise ValueError(f"`splits` is a list of some of {', '.join(LABELED_SPLITS)}")
        return self


class FirstDecay(Section):
    """``train.ema_first``."""

    decay: float = Field(gt=0, lt=1)
    steps: int = Field(ge=1)


NETWORK_PARAMETERS = (
    "model", "model_options", "weights", "init", "optimizer", "optimizer_options", "learning_rate",
    "learning_rate_batch", "weight_decay", "layer_decay", "schedule", "decay_rate", "decay_epochs", "warmup",
    "clip_grad", "frozen", "noise",
)  # fmt: skip
"""What a network beside the student may have of its own."""
NETWORK_NOISE = (
    "noise.dropout",
    "noise.stochastic_depth",
    "noise.layer_freezing",
    "noise.on_labeled",
    "noise.on_unlabeled",
)


class TrainConfig(Section):
    """``train``: one training. Runs overlay this section with their own ``train``."""

    algorithm: AlgorithmChoice
    model: str
    """Any timm model name."""
    model_options: dict[str, Any] = {}
    """More of the model's own arguments in timm, such as ``channels: [8, 16, 16, 32]`` of a small ``test_resnet``; they
    are written beside the weights. A run with another ``model`` does not inherit them; it sets its own."""
    weights: str | None = None
    """What the network starts from: ``timm``, the weights that timm has for the model; ``package``, those of the extra
    ``selftrain[weights]``; ``hf-hub:<name>``; a timm model folder; a safetensors file. Null: from scratch. Where the
    classes differ, the classifier is new."""
    head: Literal["new", "linear_probe"] = "new"
    """The classifier before the first step. ``linear_probe``: fitted to the network's features of the labeled images;
    fine-tuning then does not spoil features that are good (Kumar et al. 2022, arXiv 2202.10054)."""
    init: Literal["scratch", "teacher"] = "scratch"
    """``teacher``: start from the teacher's weights; the model must be the teacher's."""
    networks: dict[str, dict[str, Any]] = {}
    """What an algorithm's other networks have otherwise than the student, by name: a ``teacher``'s ``learning_rate``,
    its ``noise: {dropout: …}``; of ``noise`` only what is inside a network is its own."""
    pool: Literal["selection", "labeled"] = "selection"
    """What is trained on as unlabeled: the round's selection, or the labeled images (Meta Pseudo Labels as a
    regularizer, its Table 9), where algorithms that read a teacher's prediction find their labels."""
    resplit: Resplit | None = None
    """Train on a cut of one's own instead of on ``labeled``, validated on the rest of it."""
    image_size: int = Field(ge=8)
    crop_fraction: float = Field(default=1.0, gt=0, le=1)
    """Share of the shorter side that the centre crop of a clean image keeps."""
    batch_size: int = Field(ge=1)
    """Labeled images a step, over all processes."""
    unlabeled_ratio: int = Field(default=0, ge=0)
    """Unlabeled images a step for each labeled one."""
    grad_accum_steps: int = Field(default=1, ge=1)
    """Parts that a process's images of a step go through the networks in, one after the other, where memory is short:
    one optimizer step a batch all the same. BatchNorm's statistics are each part's own."""
    activation_checkpointing: bool = False
    """Keep the input of each of a network's blocks alone, and compute the block again for the gradient: a third to a
    twentieth of the activations' memory for a second forward pass."""
    sync_batchnorm: bool = False
    """With several processes: BatchNorm's statistics are of all processes' images of a step, not of each one's own."""
    steps: int | None = Field(default=None, ge=1)
    epochs: float | None = Field(default=None, gt=0)
    """Instead of ``steps``: passes over the labeled images, or, where none are trained on, over the selected ones."""
    optimizer: str = "adamw"
    """Any timm optimizer name, but for ``adahessian``."""
    optimizer_options: dict[str, Any] = {}
    """More of the optimizer's own arguments, such as ``eps``. A run, phase or network with another ``optimizer`` does
    not inherit them; it sets its own."""
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
    skip_nonfinite: int = Field(default=0, ge=0)
    """Steps that may be skipped, and are counted, because their loss or gradient is NaN or infinite; at one more the
    training ends. Above 0 every step waits for the device."""
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    """Decay of the weights' moving average, which is then what is evaluated and exported."""
    ema_warmup: Literal["tensorflow", "mean_teacher", "none"] = "tensorflow"
    """What bounds the decay in the first steps s: (1 + s) / (10 + s), 1 − 1 / (s + 1), or nothing. 0.99 is reached
    after 890 steps, or 99; 0.999 after 8,990, or 999."""
    ema_first: FirstDecay | None = None
    """Another decay for the first steps: Mean Teacher has 0.99 while its loss rises, then 0.999."""
    layer_decay: float | None = Field(default=None, gt=0, le=1)
    """The learning rate of a layer is that of the layer above times this; null: all layers have the same."""
    frozen: float = Field(default=0.0, ge=0, le=1)
    """Share of the layers, counted from the input, that are not trained; 1 leaves the classifier alone."""
    noise: NoiseConfig = NoiseConfig()
    shared_seed: bool = False
    """Whether random numbers come from ``seed`` alone. By default the run's name goes into them, so that no two runs
    of a pipeline start from the same weights or see the same order; true pairs runs that a study compares."""
    validate_every: int = Field(default=50, ge=1)
    """Steps between validations."""
    calibration: Literal["none", "validation"] = "none"
    """``validation``: the exported classifier is divided by the temperature that fits the validation images, so that
    its confidences mean something. A linear probe has one from its own cross-validation."""
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
        if self.ema_first is not None and self.ema_decay is None:
            raise ValueError("`ema_first` is another decay for the first steps; set `ema_decay` too")
        if self.schedule_from and self.schedule != "step":
            raise ValueError("`schedule_from` goes on with a `step` schedule; others end with their phase")
        return self

    def of_network(self, name: str, made: bool = False) -> "TrainConfig":
        """This training as one of its networks is trained: ``networks`` laid over it. Only the student is ``frozen`` by
        the run's own word; what an algorithm has ``made`` itself has no layers for the run's ``layer_decay``.
        """
        if name == "student":
            return self
        changes = (
            {"frozen": 0.0, "init": "scratch"} | ({"layer_decay": None} if made else {}) | self.networks.get(name, {})
        )
        values = self.model_dump(mode="json")
        return TrainConfig.model_validate(merged(inherited(values, changes), changes))

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


RUN_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
"""Run names become folders, shell words and FiftyOne fields."""


MAIN_PHASE = "main"


def phases(config: TrainConfig, where: str = "train") -> dict[str, TrainConfig]:
    """A training's phases by name: ``main``, then those of ``then``, each whole. Raises UserError naming the phase."""
    whole = config.model_dump(
        mode="json", exclude_unset=True, exclude={"then", "steps", "epochs", "patience", "init", "head"}
    )
    found = {MAIN_PHASE: config}
    for name, changes in config.then.items():
        place = f"{where}.then.{name}"
        if not RUN_NAME.fullmatch(name) or name == MAIN_PHASE:
            raise UserError(f"{place}: cannot name a phase; use letters, digits and _, a letter first")
        for own_alone in ("then", "init", "weights", "model", "model_options", "resplit", "shared_seed"):
            if own_alone in changes:
                raise UserError(f"{place}.{own_alone}: a later phase goes on with the run's; set it on the run itself")
        base = (
            whole if "algorithm" not in changes else without(whole, "algorithm", "unlabeled_ratio", "networks", "pool")
        )
        found[name] = parse_section(merged(inherited(base, changes), changes), TrainConfig, place)
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
        parse_section(merged(inherited(config.model_dump(mode="json"), changes), changes), TrainConfig, place)


def inherited(values: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """What parameters are laid over: options belong to the model, the optimizer and the algorithm that they were set
    for.
    """
    names = [each.get("name") for part in (values, changes) if isinstance(each := part.get("algorithm"), Mapping)]
    another = len(names) == 2 and names[1] is not None and names[0] != names[1]
    options = [f"{name}_options" for name in ("model", "optimizer") if name in changes]
    return without(values, *options, *(["algorithm"] if another else []))


def without(values: dict[str, Any], *names: str) -> dict[str, Any]:
    """A mapping less some of its keys."""
    return {key: value for key, value in values.items() if key not in names}
