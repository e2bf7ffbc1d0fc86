"""The part of ``train`` that describes noise."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from selftrain.plumbing.sections import MODULE_NAME, Section

Fraction = Annotated[float, Field(gt=0, le=1)]
Magnitude = Annotated[float, Field(ge=0, le=30)]
Probability = Annotated[float, Field(gt=0, le=1)]


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
    the pixels differ by rounding, and under affine operations by a few of 255 at edges."""
    random_crop: tuple[Fraction, Fraction] | None = None
    """Range of the area's share that a random resized crop keeps; null: the image as prediction sees it."""
    shift: float = Field(default=0.0, ge=0, lt=0.5)
    """Fraction of the width and height by which the image is moved at most, its edges mirrored."""
    flip: float = Field(default=0.5, ge=0, le=1)
    """Probability of a horizontal flip."""
    randaugment_ops: int = Field(default=2, ge=0)
    randaugment_magnitude: Magnitude | tuple[Magnitude, Magnitude] = 9
    """10 is the full strength of AutoAugment's ranges; the paper's 27 goes beyond them, as its code does. A range, such
    as FixMatch's ``[1, 10]``: each operation draws its own."""
    randaugment_probability: Probability | tuple[Probability, Probability] = 1.0
    """Of each operation to be applied. RandAugment and Noisy Student's code always apply it, FixMatch's in half of the
    cases. A range, such as ``[0.2, 0.8]`` of Meta Pseudo Labels' code: each image draws one for all of its operations.
    """
    randaugment_policy: str = Field(default="full", pattern=MODULE_NAME)
    """A file of ``images/policies``. ``svhn`` leaves out what turns one digit into another: rotation and horizontal
    translation."""
    cutout: float = Field(default=0.0, ge=0, lt=1)
    """Side of a grey square that is laid on the image after RandAugment, as a share of the image's; FixMatch's is 0.5.
    Its centre is anywhere, so that a part of it may lie outside."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """On the last layer."""
    stochastic_depth: float = Field(default=0.0, ge=0, lt=1)
    """Drop probability of the last block, falling linearly to the first."""

    layer_freezing: float = Field(default=0.0, ge=0, lt=1)
    """Probability of each layer to stay as it is in a step."""

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

    @property
    def most_operations(self) -> int:
        """Operations that a view has at most."""
        return self.randaugment_ops + (self.cutout > 0)

    @property
    def magnitudes(self) -> tuple[float, float]:
        """``randaugment_magnitude`` as a range."""
        return _as_range(self.randaugment_magnitude)

    @property
    def probabilities(self) -> tuple[float, float]:
        """``randaugment_probability`` as a range."""
        return _as_range(self.randaugment_probability)

    @model_validator(mode="after")
    def _ranges_in_order(self) -> "NoiseConfig":
        for name in ("random_crop", "randaugment_magnitude", "randaugment_probability"):
            value = getattr(self, name)
            if isinstance(value, tuple) and value[0] > value[1]:
                raise ValueError(f"`{name}` is [smallest, largest], not {list(value)}")
        return self


def _as_range(value: float | tuple[float, float]) -> tuple[float, float]:
    return value if isinstance(value, tuple) else (value, value)
