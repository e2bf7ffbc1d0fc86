"""Cutting validation and test from one labeled folder: by seed, stratified by class."""

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import xxhash

from selftrain.corpus.sources import SourceImage
from selftrain.counters import mix
from selftrain.errors import UserError


def cut(images: Iterable[SourceImage], shares: dict[str, float], seed: int) -> dict[str, list[SourceImage]]:
    """Deal labeled images to ``labeled`` and to each split in ``shares``.

    In every class, a split gets its share of the images, rounded, at least one; which ones depends on
    the seed and each image's path alone, not on the order they are found in.

    Raises UserError if a class is too small to leave an image for every split.
    """
    by_class: dict[str | None, list[SourceImage]] = defaultdict(list)
    for image in images:
        by_class[image.class_name].append(image)
    result: dict[str, list[SourceImage]] = {"labeled": by_class.pop(None, []), **{name: [] for name in shares}}
    for class_name, members in by_class.items():
        paths = np.array([xxhash.xxh3_64_intdigest(image.source.encode()) for image in members], dtype=np.uint64)
        dealt = [members[i] for i in np.argsort(mix(seed, paths), kind="stable")]
        for name, share in shares.items():
            count = max(1, round(share * len(members)))
            result[name].extend(dealt[:count])
            dealt = dealt[count:]
        if not dealt:
            raise UserError(
                f"class '{class_name}' has {len(members)} labeled images, too few to cut {' and '.join(shares)} from; "
                "add images or lower `share`"
            )
        result["labeled"].extend(dealt)
    return result
