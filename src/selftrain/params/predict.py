"""The section of params.yaml about labeling the pool."""

from typing import Annotated

from pydantic import Field, field_validator

from selftrain.params.noise import Noise
from selftrain.plumbing.sections import Section


class PredictConfig(Section):
    """``predict``."""

    noise: tuple[Noise, ...] = ()
    """Noises of the run's own training that act on the unlabeled images too. The paper's teacher has none, and its
    Table 6 shows why; validation and test images are never noised."""
    top_k: Annotated[int, Field(ge=1)] | None = None
    """Keep log-probabilities of so many of the likeliest classes of each image of the pool, and of the others their
    mean: with 20 of 1,000 classes 70 bytes an image in place of 1,600. null: keep all."""
    embeddings: bool = False
    """Write the images' embeddings too, for FiftyOne's map and likenesses, `select.gate` and `selftrain ask`: 2 D bytes
    an image more."""
    embeddings_layer: int | None = None
    """The embeddings are the mean of this feature map of timm's list over its places, -1 the last, -2 the one before;
    null: what the classifier sees."""

    @field_validator("noise")
    @classmethod
    def _as_table_6(cls, noise: tuple[Noise, ...]) -> tuple[Noise, ...]:
        if "weak_augmentation" in noise:
            raise ValueError("`weak_augmentation` is a student's; take `augmentation`, or none")
        return noise
