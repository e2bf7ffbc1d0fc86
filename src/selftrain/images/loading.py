"""Reading images in training and prediction: by their place in an index, pixels on demand."""

import os
from collections.abc import Callable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from selftrain.images.decode import Pixels, decode_pixels
from selftrain.images.index import ImageIndex
from selftrain.images.pixel_cache import PixelCache, cache_folder, make_room
from selftrain.images.pixel_layouts import Layout, WholeImages, square_bytes, squares
from selftrain.images.reader import ShardReader
from selftrain.images.transforms import clean
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.files import read_json
from selftrain.plumbing.hardware import Caches
from selftrain.plumbing.locks import Reading
from selftrain.tables.keys import SPLITS


class ImageLoader:
    """Decodes images of one split by their place in an index. Opens shards lazily, so that it can be forked.

    As long as it lives, `ingest` of the corpus waits. Decoded pixels, and shards that lie in a store, are kept on the
    disk up to ``caches``.
    """

    def __init__(self, index: ImageIndex, caches: Caches = Caches()) -> None:  # noqa: B008
        self.index, self.cache_bytes = index, caches.pixels
        folder = index.split_folder
        self.corpus = folder.parent if folder.name in SPLITS else folder
        self._reading = Reading(self.corpus)
        self._reader = ShardReader(index.split_folder, caches.shards)
        self._caches: dict[str, PixelCache | None] = {}
        self._last: tuple[int, Pixels] | None = None

    def image(self, row: int) -> Pixels:
        """The decoded image (H, W, 3) at a place in the index.

        Raises UserError naming shard and key if it is damaged.
        """
        if "images" not in self._caches:
            layout = WholeImages(self.corpus)
            needed = layout.total_bytes(self._splits(), self.cache_bytes) if self.cache_bytes else 0
            self._caches["images"] = self._cache("images", layout, needed)
        return self._kept("images", row, lambda: self._decoded(row))

    def square(self, row: int, size: int, crop_fraction: float) -> Pixels:
        """The image at a place in the index as a network sees it without noise, (size, size, 3)."""
        what = f"{size}-{crop_fraction}"
        if what not in self._caches:
            self._caches[what] = self._cache(what, squares(size), self._images() * square_bytes(size))
        return self._kept(what, row, lambda: clean(self._decoded(row), size, crop_fraction))

    def another(self, uniform: float, size: int, crop_fraction: float) -> Pixels:
        """The square of some image of the index for a number from 0 to 1, all equally likely."""
        return self.square(min(int(uniform * len(self.index)), len(self.index) - 1), size, crop_fraction)

    @cached_property
    def in_store(self) -> bool:
        """Whether some images may have to be fetched, so that it pays to ask for them ``ahead``."""
        return any(not os.path.exists(self.index.split_folder / shard) for shard in self.index.shards)

    def ahead(self, rows: NDArray[np.int64]) -> None:
        """Begin to fetch images that will be asked for soon and are not kept here."""
        missing = [int(row) for row in rows if not self._is_kept(int(row))]
        self._reader.ahead(self._place(row) for row in missing)

    def _is_kept(self, row: int) -> bool:
        """Whether the pixels that were asked for so far, of other images, are kept of this one too."""
        key, content = int(self.index.keys[row]), int(self.index.xxh3[row])
        caches = self._caches.values()
        return bool(caches) and all(cache is not None and cache.holds(key, content) for cache in caches)

    def _place(self, row: int) -> tuple[str, int, int, int]:
        """(shard, offset, size, hash) of an image."""
        index = self.index
        shard = index.shards[index.shard[row]]
        return shard, int(index.offset[row]), int(index.size[row]), int(index.xxh3[row])

    def _decoded(self, row: int) -> Pixels:
        """Several views of one image are asked for in turn, so that the last one is held."""
        if self._last is None or self._last[0] != row:
            self._last = (row, self._decode(row))
        return self._last[1]

    def _decode(self, row: int) -> Pixels:
        index, place = self.index, self._place(row)
        data = self._reader.read(*place)
        try:
            return decode_pixels(data)
        except UserError as error:
            raise UserError(
                f"{index.split_folder / place[0]}: image {index.keys[row]} {error}, though it was whole when ingested; "
                "restore the shard with `dvc checkout`"
            ) from None

    def _cache(self, what: str, layout: Layout, needed: int) -> PixelCache | None:
        """Kept pixels, if those of all images of the corpus, ``needed`` bytes, have room."""
        if not self.cache_bytes:
            return None
        folder = cache_folder(self.corpus, what)
        return PixelCache(folder, layout) if make_room(folder, needed, self.cache_bytes) else None

    def _images(self) -> int:
        """Images of the whole corpus; of those that `st.train` makes, the index's."""
        summary = self.corpus / "summary.json"
        if not self.cache_bytes or not summary.exists():
            return len(self.index)
        of_split = read_json(summary, "dvc repro ingest")
        return sum(of_split[split]["images"] for split in SPLITS)

    def _splits(self) -> list[str]:
        """Those that the corpus has: one that `st.train` makes may lack some."""
        return [split for split in SPLITS if (self.corpus / split / "manifest").is_dir()]

    def _kept(self, what: str, row: int, make: Callable[[], Pixels]) -> Pixels:
        cache = self._caches[what]
        if cache is None:
            return make()
        return cache.pixels(int(self.index.keys[row]), int(self.index.xxh3[row]), make)
