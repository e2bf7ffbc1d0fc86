"""How many planted copies of held-out images ingest finds in a pool, and how many innocent images it takes for copies.

    python benchmarks/leaks.py --held-out FOLDER --pool FOLDER

Both folders hold class folders of images that are not in the other. Copies are planted of each held-out image: exact,
re-encoded (JPEG, quality 50), resized (to 75% and to 200%), cropped (5% and 10% of each side, anywhere), mirrored,
mirrored and re-encoded, mirrored and cropped, recoloured (another hue; paler and brighter), with a border of any
colour, with text across.
"""

import argparse
import io
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from selftrain.corpus.ingest import ingest
from selftrain.images.decode import SUFFIXES
from selftrain.params.ingest import IngestConfig

RNG = random.Random(0)


def encoded(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=50)
    return Image.open(file).convert("RGB")


def resized(image: Image.Image, factor: float) -> Image.Image:
    return image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC)


def cropped(image: Image.Image, share: float = 0.05) -> Image.Image:
    width, height = (1 - share) * image.width, (1 - share) * image.height
    left, top = RNG.uniform(0, image.width - width), RNG.uniform(0, image.height - height)
    return image.resize(image.size, Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))


def recoloured(image: Image.Image) -> Image.Image:
    hue, *others = image.convert("HSV").split()
    turned = RNG.randrange(20, 236)
    return Image.merge("HSV", [hue.point(lambda value: (value + turned) % 256), *others]).convert("RGB")


def paler(image: Image.Image) -> Image.Image:
    return ImageEnhance.Contrast(ImageEnhance.Brightness(image).enhance(1.4)).enhance(0.7)


def bordered(image: Image.Image) -> Image.Image:
    colour = (RNG.randrange(256), RNG.randrange(256), RNG.randrange(256))
    return ImageOps.expand(image, round(RNG.choice((0.03, 0.06, 0.1)) * min(image.size)), fill=colour)


def with_text(image: Image.Image) -> Image.Image:
    written = image.copy()
    place = (0.1 * image.width, RNG.uniform(0, 0.8) * image.height)
    ImageDraw.Draw(written).text(place, "SALE 50% OFF", fill=(255, 0, 0), font_size=max(8, image.width / 8))
    return written


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "exact": lambda image: image.copy(),
    "re-encoded": encoded,
    "resized to 75%": lambda image: resized(image, 0.75),
    "resized to 200%": lambda image: resized(image, 2),
    "cropped by 5%": cropped,
    "cropped by 10%": lambda image: cropped(image, 0.1),
    "mirrored": ImageOps.mirror,
    "mirrored, re-encoded": lambda image: encoded(ImageOps.mirror(image)),
    "mirrored, cropped by 5%": lambda image: cropped(ImageOps.mirror(image)),
    "another hue": recoloured,
    "paler and brighter": paler,
    "with a border": bordered,
    "with text": with_text,
}


def pick(folder: Path, count: int) -> list[Path]:
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    return random.Random(1).sample(files, min(count, len(files)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--held-out", type=Path, required=True)
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--held-out-images", type=int, default=2000)
    parser.add_argument("--pool-images", type=int, default=10000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        held_out = pick(options.held_out, options.held_out_images)
        for number, path in enumerate(held_out):
            image = Image.open(path).convert("RGB")
            for folder in (root / "validation" / "a", root / "test" / "a", root / "pool"):
                folder.mkdir(parents=True, exist_ok=True)
            image.save(root / ("validation", "test")[number % 2] / "a" / f"{number}.png")
            for kind, alter in COPIES.items():
                alter(image).save(root / "pool" / f"{kind}~{number}.png")
        innocent = pick(options.pool, options.pool_images)
        for number, path in enumerate(innocent):
            Image.open(path).convert("RGB").save(root / "pool" / f"innocent~{number}.png")
        for split in ("labeled", "validation", "test"):
            for name in ("a", "b"):
                folder = root / split / name
                folder.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (8, 8), (len(split), ord(name), 0)).save(folder / "plain.png")
        splits = {split: {"images": split} for split in ("labeled", "validation", "test")}
        config = {"root": scratch, "unlabeled": {"images": "pool"}, "images_per_shard": 100000, **splits}
        began = time.monotonic()
        ingest(IngestConfig.model_validate(config), 0, root / "corpus")
        seconds = time.monotonic() - began
        names = pl.concat(
            pl.read_parquet(sorted((root / "corpus" / split / "manifest").glob("*.parquet"))).select("key", "source")
            for split in ("unlabeled", "validation", "test")
        )
        leaks = (
            pl.read_parquet(root / "corpus" / "duplicates.parquet")
            .filter(pl.col("kind") == "leak")
            .join(names, on="key")
            .join(names.rename({"key": "of_key", "source": "of"}), on="of_key")
        )
        found = {Path(source).stem: Path(of).stem for source, of in leaks.select("source", "of").iter_rows()}
    print(f"{len(held_out):,} held-out images, {len(innocent):,} innocent ones; ingest in all {seconds:.0f} s")
    for kind in COPIES:
        flagged = sum(f"{kind}~{number}" in found for number in range(len(held_out)))
        right = sum(found.get(f"{kind}~{number}") == str(number) for number in range(len(held_out)))
        print(f"{kind}: {flagged / len(held_out):.2%} found, {right / len(held_out):.2%} with the image they copy")
    wrong = sum(name.startswith("innocent~") for name in found)
    print(f"innocent: {wrong} of {len(innocent):,} taken for copies ({wrong / len(innocent):.3%})")


if __name__ == "__main__":
    main()
