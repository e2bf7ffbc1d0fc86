"""The section of params.yaml about robustness."""

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field, model_validator

from selftrain.params.noise import Fraction, Magnitude, NoiseConfig
from selftrain.plumbing.sections import MODULE_NAME, Section

SuiteName = Annotated[str, Field(pattern=MODULE_NAME)]


class RobustnessConfig(Section):
    """``robustness``: what every run is put through."""

    suites: tuple[SuiteName, ...] = ("corruptions", "perturbations", "adversarial", "randaugment")
    """Files of ``evaluation/robustness/suites``."""
    image_size: int | None = Field(default=None, ge=8)
    """Pixels a side at which images are corrupted and perturbed before they are resized to what each network takes;
    null: the network's own size, which all the runs compared must then share."""
    images: int | None = Field(default=None, ge=1)
    """At most so many test images, drawn by the seed; null: all of them."""
    corruptions_folder: str | None = None
    """Corrupted images made elsewhere, laid out as ImageNet-C is (``<corruption>/<severity>/<class>/…``), in place of
    those computed here."""
    folders: dict[str, str] = {}
    """More labeled folders by name, with a subset of the classes, as ImageNet-A is."""
    reference: str = "teacher"
    """The run, of those evaluated, whose errors mean corruption error and mean flip rate are relative to. ``alexnet``:
    the published errors, which belong to ImageNet-C's own images at 224 pixels."""
    fgsm: tuple[float, ...] = tuple(range(1, 17))
    """Sizes ε of the fast gradient sign attack, of 255."""
    pgd: tuple[float, ...] = (1, 2, 4, 8, 16)
    """Sizes ε of projected gradient descent."""
    pgd_steps: int = Field(default=10, ge=1)
    passes: int = Field(default=5, ge=1)
    """Seeded passes of RandAugment over validation and test."""
    randaugment_ops: int = Field(default=2, ge=0)
    randaugment_magnitude: Magnitude = 9
    randaugment_probability: float = Field(default=1.0, gt=0, le=1)
    randaugment_policy: str = Field(default="full", pattern=MODULE_NAME)
    random_crop: tuple[Fraction, Fraction] | None = None
    """Of the passes' crop-and-flip views; null: no crop."""
    flip: float = Field(default=0.0, ge=0, le=1)

    @property
    def all_suites(self) -> tuple[str, ...]:
        """The suites, and ``folders`` if there are some."""
        return (*self.suites, *(("folders",) if self.folders else ()))

    def modules(self, suites: Iterable[str]) -> list[str]:
        """The modules that these suites find by name."""
        policies = [f"images.policies.{self.randaugment_policy}"] if "randaugment" in suites else []
        return [*(f"evaluation.robustness.suites.{suite}" for suite in suites), *policies]

    @model_validator(mode="after")
    def _sizes(self) -> "RobustnessConfig":
        for name, sizes in (("fgsm", self.fgsm), ("pgd", self.pgd)):
            if not sizes or min(sizes) <= 0 or max(sizes) > 255:
                raise ValueError(f"`{name}` is a list of sizes above 0 and at most 255")
        self.views(self.randaugment_ops)
        return self

    def views(self, operations: int) -> NoiseConfig:
        """The passes' random views, with so many operations of RandAugment."""
        return NoiseConfig(
            random_crop=self.random_crop,
            flip=self.flip,
            randaugment_ops=operations,
            randaugment_magnitude=self.randaugment_magnitude,
            randaugment_probability=self.randaugment_probability,
            randaugment_policy=self.randaugment_policy,
        )
