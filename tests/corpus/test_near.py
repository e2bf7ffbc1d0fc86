import io
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image, ImageOps

from selftrain.corpus import near, verdicts
from selftrain.corpus.ingest import ingest
from selftrain.corpus.near import near_copies
from selftrain.params.ingest import IngestConfig
from selftrain.plumbing.engines import Here
from selftrain.plumbing.files import read_json
from selftrain.report.copies_section import copies_section
from tests.corpus.photographs import SIDE, tiles


def as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def cropped(image: Image.Image, rng: random.Random) -> Image.Image:
    side = SIDE * 0.95
    left, top = rng.uniform(0, SIDE - side), rng.uniform(0, SIDE - side)
    return image.resize((60, 60), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))


COPIES: dict[str, tuple[Callable[[Image.Image, random.Random], Image.Image], float]] = {
    "exact": (lambda image, rng: image.copy(), 1.0),
    "encoded": (lambda image, rng: as_jpeg(image, 50), 0.99),
    "smaller": (lambda image, rng: image.resize((40, 40), Image.Resampling.BICUBIC), 0.99),
    "larger": (lambda image, rng: image.resize((100, 100), Image.Resampling.BICUBIC), 0.99),
    "cropped": (cropped, 0.95),
    "mirrored": (lambda image, rng: ImageOps.mirror(image), 0.95),
    "mirrored_and_encoded": (lambda image, rng: as_jpeg(ImageOps.mirror(image), 60), 0.95),
}


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half of the tiles held out, the other half in the pool, with copies of the held-out ones."""
    root, rng = tmp_path_factory.mktemp("planted"), random.Random(0)
    pieces = tiles()
    rng.shuffle(pieces)
    half = len(pieces) // 2
    for number, tile in enumerate(pieces[:half]):
        split, label = ("validation", "test")[number % 2], ("a", "b")[number // 2 % 2]
        _save(tile, root / "images" / split / label / f"{number}.png")
        for kind, (alter, _) in COPIES.items():
            _save(alter(tile, rng), root / "images" / "pool" / f"{kind}-{number}.png")
    for number, tile in enumerate(pieces[half:]):
        _save(tile, root / "images" / "pool" / f"innocent-{number}.png")
    for label in ("a", "b"):
        _save(Image.new("RGB", (30, 30), (9, 9, 9)), root / "images" / "labeled" / label / f"{label}.png")
    return root


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def test_planted_copies_are_found_and_the_innocent_are_not(planted: Path) -> None:
    splits = {split: {"images": split} for split in ("labeled", "validation", "test")}
    config = {"root": str(planted / "images"), "unlabeled": {"images": "pool"}, **splits}
    ingest(IngestConfig.model_validate(config), 0, planted / "corpus")
    sources = pl.concat(
        pl.read_parquet(sorted((planted / "corpus" / split / "manifest").glob("*.parquet"))).select("key", "source")
        for split in ("unlabeled", "validation", "test")
    )
    rows = (
        pl.read_parquet(planted / "corpus" / "duplicates.parquet")
        .join(sources, on="key")
        .join(sources.rename({"key": "of_key", "source": "of_source"}), on="of_key")
    )
    pool = [Path(source).stem.rsplit("-", 1) for source in sources["source"] if "pool" in source]
    leaks = rows.filter(pl.col("kind") == "leak")
    found = {
        Path(s).stem: (Path(of).stem, match) for s, of, match in leaks.select("source", "of_source", "match").rows()
    }
    for kind, (_, least) in COPIES.items():
        numbers = [number for name, number in pool if name == kind]
        assert len(numbers) >= 20
        right = sum(found.get(f"{kind}-{number}", ("", ""))[0] == number for number in numbers)
        assert right >= least * len(numbers), kind
        matches = {found[f"{kind}-{number}"][1] for number in numbers if f"{kind}-{number}" in found}
        assert matches == {"exact" if kind == "exact" else "near"}
    assert not [name for name in found if name.startswith("innocent")]
    counts = read_json(planted / "corpus" / "summary.json", "")["unlabeled"]
    assert counts["leaks"] + counts["near_leaks"] == len(found)
    assert counts["leaks"] == len([name for name, _ in pool if name == "exact"])
    near = rows.filter(pl.col("match") == "near").sort("correlation", "key")
    shown = copies_section(planted / "corpus", 10)
    assert (shown.found, len(shown.pairs)) == (len(near), 10)
    for (copy, original), row in zip(shown.pairs, near.iter_rows(named=True), strict=False):
        assert copy.title.startswith(f"{row['key']}: {row['kind']} of {row['of_key']}, agreement 0.")
        assert original.title == str(row["of_key"])
        assert copy.data_url.startswith("data:image/")
        assert copy.data_url != original.data_url


def test_any_cut_into_units_finds_the_same(planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    splits = {split: {"images": split} for split in ("labeled", "validation", "test")}
    config = {"root": str(planted / "images"), "unlabeled": {"images": "pool"}, "near_duplicates": False, **splits}
    ingest(IngestConfig.model_validate(config | {"images_per_shard": 50}), 0, tmp_path / "corpus")
    monkeypatch.setattr(verdicts, "FOLDER", tmp_path / "whole")
    expected = near_copies(tmp_path / "corpus", Here())
    assert len(expected) > 50
    monkeypatch.setattr(near, "POOL_CHUNK", 400)
    monkeypatch.setattr(near, "HELD_OUT", 50)
    monkeypatch.setattr(verdicts, "FOLDER", tmp_path / "cut")
    assert near_copies(tmp_path / "corpus", Here()) == expected
    assert near_copies(tmp_path / "corpus", Here()) == expected, "with what was remembered"


def test_looking_for_altered_copies_can_be_switched_off_and_passes_over_tiny_images(
    planted: Path, digits_corpus: Path
) -> None:
    splits = {split: {"images": split} for split in ("labeled", "validation", "test")}
    config = {"root": str(planted / "images"), "unlabeled": {"images": "pool"}, "near_duplicates": False, **splits}
    ingest(IngestConfig.model_validate(config), 0, planted / "without")
    assert set(pl.read_parquet(planted / "without" / "duplicates.parquet")["match"]) == {"exact"}
    assert len(pl.read_parquet(digits_corpus / "duplicates.parquet")) == 0, "digits of 8×8 pixels are alike, not copies"


def test_of_copies_inside_the_pool_the_largest_stays(planted: Path, tmp_path: Path) -> None:
    kinds = {"as_it_is": lambda image, rng: image} | {
        name: COPIES[name][0] for name in ("encoded", "larger", "mirrored")
    }
    pieces, rng = tiles()[::2], random.Random(0)
    for number, tile in enumerate(pieces):
        for kind, alter in kinds.items() if number % 2 else [("alone", kinds["as_it_is"])]:
            _save(alter(tile, rng), tmp_path / "images" / "pool" / f"{kind}-{number}.png")
    for split, grey in (("labeled", 9), ("validation", 99), ("test", 199)):
        for place, label in enumerate("ab"):
            _save(Image.new("RGB", (30, 30), (grey, place, 0)), tmp_path / "images" / split / label / "plain.png")
    splits = {split: {"images": split} for split in ("labeled", "validation", "test")}
    config = {"root": str(tmp_path / "images"), "unlabeled": {"images": "pool"}, **splits}
    summary = ingest(IngestConfig.model_validate(config), 0, tmp_path / "corpus")
    names = pl.read_parquet(sorted((tmp_path / "corpus" / "unlabeled" / "manifest").glob("*.parquet")))
    name_of = {key: Path(source).stem for key, source in names.select("key", "source").iter_rows()}
    rows = pl.read_parquet(tmp_path / "corpus" / "duplicates.parquet")
    assert set(rows["kind"]) == {"duplicate"}
    assert set(rows["match"]) == {"near"}
    found = {name_of[key]: name_of[of] for key, of in rows.select("key", "of_key").iter_rows()}
    wanted = {
        f"{kind}-{number}": f"larger-{number}"
        for number in range(1, len(pieces), 2)
        for kind in ("as_it_is", "encoded", "mirrored")
    }
    assert len(wanted) > 30
    assert found.items() <= wanted.items(), "nothing else is taken for a copy, and the largest is the one that stays"
    assert len(found) >= 0.95 * len(wanted)
    assert summary["unlabeled"]["near_duplicates"] == len(found)


def test_nothing_is_looked_at_twice(planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a change no image is decoded; a new image of the pool is looked at alone; the same is found as anew."""
    monkeypatch.setattr(verdicts, "FOLDER", tmp_path / "near")
    images = tmp_path / "images"
    shutil.copytree(planted / "images", images)
    corpus = tmp_path / "corpus"
    values = {"root": str(images), "unlabeled": {"images": "pool"}}
    config = IngestConfig.model_validate(
        values | {split: {"images": split} for split in ("labeled", "validation", "test")}
    )
    held_back = images / "pool" / "encoded-0.png"
    later = held_back.read_bytes()
    held_back.unlink()

    def found() -> list[tuple[object, ...]]:
        ingest(config, 0, corpus)
        return pl.read_parquet(corpus / "duplicates.parquet").rows()

    decoded: list[int] = []
    original = near.decode

    def counted(data: bytes) -> Image.Image:
        decoded.append(len(data))
        return original(data)

    monkeypatch.setattr(near, "decode", counted)
    first = found()
    assert len(first) > 20
    looked_at = len(decoded)
    decoded.clear()
    assert found() == first
    assert not decoded
    held_back.write_bytes(later)
    second = found()
    assert 0 < len(decoded) < looked_at / 10
    assert set(first) < set(second)
    assert len(second) == len(first) + 1
    shutil.rmtree(tmp_path / "near")
    assert found() == second
    # What is damaged is not believed.
    for file in (tmp_path / "near").rglob("*.parquet"):
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    assert found() == second


def test_blank_images_are_compared_with_none(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are all alike: what is near would be all pairs. An image that grows darker to the right is none of them."""
    monkeypatch.setattr(verdicts, "FOLDER", tmp_path / "near")
    for number in range(60):
        _save(Image.new("RGB", (40 + number, 40), (number, 9, 9)), photos / "pool" / f"blank-{number}.png")
    falling = Image.fromarray(np.tile(np.linspace(200, 20, 64).astype(np.uint8)[None, :, None], (64, 1, 3)))
    _save(falling, photos / "pool" / "falling.png")
    _save(as_jpeg(falling, 80).resize((80, 80)), photos / "pool" / "falling again.png")
    values = {"root": str(photos), "unlabeled": {"images": "pool"}}
    splits = {split: {"images": split} for split in ("labeled", "validation", "test")}
    ingest(IngestConfig.model_validate(values | splits), 0, tmp_path / "corpus")
    manifest = pl.read_parquet(tmp_path / "corpus" / "unlabeled" / "manifest" / "*.parquet").to_arrow()
    shown = near.comparable(manifest)
    assert [Path(source).name for source, here in zip(manifest["source"].to_pylist(), shown, strict=True) if here] == [
        "falling again.png", "falling.png",
    ]  # fmt: skip
    assert len(pl.read_parquet(tmp_path / "near" / "*" / "pool.parquet")) == 1
