"""Cutting validation and test from one labeled folder: by seed, stratified by class."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import PurePosixPath

import numpy as np
import xxhash

from selftrain.corpus.source_image import ANSWER, SourceImage
from selftrain.counters import Stream, mix
from selftrain.plumbing.errors import UserError


def cut(images: Iterable[SourceImage], shares: dict[str, float], seed: int) -> dict[str, list[SourceImage]]:
    """Deal labeled images to ``labeled`` and to each split in ``shares``.

    In every class, a split gets its share of the images, rounded, at least one: those that come first when the class is
    ordered by a hash of the seed and each image's path. The order in which they are found plays no part; adding images
    may move a few from one split to another. A file that is listed twice stays in one split. What people answered stays
    labeled, and moves no other image.

    Raises UserError if a class is too small to leave an image for every split.
    """
    found = list(images)
    by_class: dict[str | None, dict[str, SourceImage]] = defaultdict(dict)
    for image in found:
        answered = PurePosixPath(image.source).name.startswith(ANSWER)
        by_class[None if answered else image.class_name][image.source] = image
    split_of = dict.fromkeys(by_class.pop(None, {}), "labeled")
    for class_name, members in by_class.items():
        paths = np.array([xxhash.xxh3_64_intdigest(source.encode()) for source in members], dtype=np.uint64)
        sources = list(members)
        dealt = [sources[place] for place in np.argsort(mix(seed, Stream.HELD_OUT_CUT, paths), kind="stable")]
        for name, share in shares.items():
            count = max(1, round(share * len(members)))
            split_of.update(dict.fromkeys(dealt[:count], name))
            dealt = dealt[count:]
        if not dealt:
            raise UserError(
                f"class '{class_name}' has {len(members)} labeled images, too few to cut {' and '.join(shares)} from; "
                "add images or lower `share`"
            )
        split_of.update(dict.fromkeys(dealt, "labeled"))
    result: dict[str, list[SourceImage]] = {"labeled": [], **{name: [] for name in shares}}
    for image in found:
        result[split_of[image.source]].append(image)
    return result
