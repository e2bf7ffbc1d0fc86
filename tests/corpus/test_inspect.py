import hashlib
import io

import numpy as np
from PIL import Image, ImageOps

from selftrain.corpus.inspect import difference_hash, grey_thumbnail, image_facts
from tests.conftest import image_bytes


def smooth_image(seed: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((96, 96), Image.Resampling.BICUBIC)


def jpeg(image: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def test_facts() -> None:
    data = image_bytes(3, (12, 10))
    facts = image_facts(data, 10**6)
    assert (facts.format, facts.width, facts.height) == ("PNG", 12, 10)
    assert facts.sha256 == hashlib.sha256(data).digest()


def test_equal_pixels_have_equal_hashes_in_any_lossless_format() -> None:
    png, bmp = (image_facts(image_bytes(3, image_format=name), 10**6) for name in ("PNG", "BMP"))
    assert png.pixels == bmp.pixels
    assert png.sha256 != bmp.sha256
    assert png.pixels != image_facts(image_bytes(4), 10**6).pixels
    wide, tall = (image_facts(image_bytes(0, size, mode="1"), 10**6) for size in ((4, 2), (2, 4)))
    assert wide.pixels != tall.pixels


def test_difference_hash_is_near_for_reencoded_and_far_for_other_images() -> None:
    def distance(one: Image.Image, other: Image.Image) -> int:
        return ((difference_hash(np.asarray(one)) ^ difference_hash(np.asarray(other))) & (2**64 - 1)).bit_count()

    images = [smooth_image(seed) for seed in range(20)]
    for image in images:
        again = Image.open(io.BytesIO(jpeg(image.resize((60, 60)), 50)))
        assert distance(image, again) <= 10
    assert min(distance(a, b) for i, a in enumerate(images) for b in images[:i]) > 10


def test_difference_hash_by_hand() -> None:
    rising = np.tile(np.arange(0, 180, 20, dtype=np.uint8)[:, None], (8, 1, 3))
    assert difference_hash(rising) == -1, "every bit set, signed"
    assert difference_hash(rising[:, ::-1].copy()) == 0


def test_the_grey_thumbnail_is_pillows() -> None:
    rng = np.random.default_rng(0)
    for seed in range(50):
        image = smooth_image(seed).resize(tuple(rng.integers(9, 600, 2).tolist()))
        expected = image.convert("L").resize((9, 8), Image.Resampling.BILINEAR)
        assert np.abs(grey_thumbnail(np.asarray(image)) - np.asarray(expected, np.int16)).max() <= 1


def test_the_mirrored_hash_is_the_mirror_images() -> None:
    for seed in range(20):
        data = image_bytes(seed, (123 + seed, 77))
        mirrored = ImageOps.mirror(Image.open(io.BytesIO(data)))
        assert image_facts(data, 10**9).dhash_mirrored == difference_hash(np.asarray(mirrored))
