"""The sections of params.yaml that say where images come from."""

from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator

from selftrain.plumbing.sections import Section
from selftrain.plumbing.stores import is_url
from selftrain.tables.keys import LABELED_SPLITS, MAX_IMAGES_PER_SHARD


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


COMPRESSIONS = {".tgz": "gzip", ".tbz2": "bz2", ".txz": "xz"}
"""By suffix, those that fsspec does not infer."""
SHARDS = (".tar", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", *COMPRESSIONS)


def is_shards(path: str) -> bool:
    """Whether a path of the parameters names shards, not a folder."""
    return is_url(path) or path.endswith(SHARDS)


Paths = Annotated[list[str], BeforeValidator(_as_list)]


class Source(Section):
    """Where one split's images come from: folders or shards, or a share cut from the labeled ones."""

    images: Paths = []
    cut_from: str | None = None
    share: float | None = Field(default=None, gt=0, lt=1)
    in_place: bool = False
    """Of ``unlabeled``: shards stay where they are, on a disk or in a store. Only their manifest is written."""

    @model_validator(mode="after")
    def _one_way(self) -> "Source":
        if bool(self.images) == bool(self.cut_from):
            raise ValueError("give either `images` (paths) or `cut_from` with `share`")
        if (self.cut_from is None) != (self.share is None):
            raise ValueError("`cut_from` and `share` belong together")
        if self.cut_from not in (None, "labeled"):
            raise ValueError("splits can be cut from `labeled` only")
        if self.in_place and not self.images:
            raise ValueError("`in_place` is of `images` that are shards")
        for path in self.images if self.in_place else ():
            if not is_shards(path):
                raise ValueError(f"`in_place` reads shards, and {path!r} is a folder; pack it into tars, or copy it")
        return self


class IngestConfig(Section):
    """``ingest``: the four splits and the limits of what is taken in."""

    root: str
    """Folder that DVC watches; relative paths below are relative to it."""
    labeled: Source
    unlabeled: Source
    validation: Source
    test: Source
    classes: list[str] | None = None
    """Names by class index, for shards whose ``.cls`` members hold indices. Folders name their classes themselves."""
    truth: str | None = None
    """CSV with the columns ``file,label`` that tells the hidden truth of unlabeled images; empty label: no class."""
    multi_labels: str | None = None
    """CSV with the columns ``file,label`` and as many rows for a test image as classes are right, as in ImageNet-ReaL:
    ``evaluate`` then gives precision@1 too."""
    near_duplicates: bool = True
    """Look for altered copies of validation and test images in the pool too, not only for equal pixels."""
    images_per_shard: int = Field(default=1000, ge=1, le=MAX_IMAGES_PER_SHARD)
    max_pixels: int = Field(default=100_000_000, ge=1)
    """Larger images are quarantined before they are decoded: a small file can hold a huge image."""
    max_quarantined: float = Field(default=0.01, ge=0, le=1)
    """Share of broken images, a split, above which ingest stops."""

    @model_validator(mode="after")
    def _only_the_pool_stays(self) -> "IngestConfig":
        for split in LABELED_SPLITS:
            if getattr(self, split).in_place:
                raise ValueError(f"`{split}.in_place`: only `unlabeled` can stay in place; the others are copied")
        return self
