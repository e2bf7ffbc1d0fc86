from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from selftrain.evaluation.robustness.corruptions import corrupt
from selftrain.evaluation.robustness.shift import ShiftConfig, write_shifted
from selftrain.plumbing.errors import UserError
from tests.conftest import write_images


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    write_images(tmp_path / "in" / "labeled" / "a", 3)
    write_images(tmp_path / "in" / "pool" / "deep", 12, 50)
    (tmp_path / "in" / "truth.csv").write_text("file,label\n")
    return tmp_path / "in"


def test_only_the_named_folders_are_corrupted_and_names_stay(images: Path, tmp_path: Path) -> None:
    config = ShiftConfig(images=str(images), folders=("pool",), size=32)
    assert write_shifted(config, 0, tmp_path / "out") == 12
    files = [path.relative_to(images) for path in sorted(images.rglob("*")) if path.is_file()]
    assert [
        path.relative_to(tmp_path / "out") for path in sorted((tmp_path / "out").rglob("*")) if path.is_file()
    ] == files
    for file in files:
        same = (images / file).read_bytes() == (tmp_path / "out" / file).read_bytes()
        assert same == ("pool" not in file.parts)


def test_each_image_is_corrupted_as_the_suite_would(images: Path, tmp_path: Path) -> None:
    config = ShiftConfig(images=str(images), folders=("pool",), corruptions=("brightness",), severities=(3,), size=32)
    write_shifted(config, 0, tmp_path / "out")
    for path in sorted((images / "pool").rglob("*.png")):
        square = np.asarray(Image.open(path).convert("RGB").resize((32, 32), Image.Resampling.BICUBIC))
        expected = corrupt(square[None], np.array([0]), "brightness", 3, 0)[0]  # it draws nothing
        assert np.array_equal(pixels(tmp_path / "out" / path.relative_to(images)), expected)


def test_the_seed_draws_and_draws_the_same_again(images: Path, tmp_path: Path) -> None:
    config = ShiftConfig(images=str(images), folders=("pool",), size=32)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_shifted(config, seed, tmp_path / name)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a" / "pool").rglob("*.png"))
    first = [pixels(tmp_path / "a" / file) for file in files]
    assert all(np.array_equal(one, pixels(tmp_path / "b" / file)) for one, file in zip(first, files, strict=True))
    assert any(not np.array_equal(one, pixels(tmp_path / "c" / file)) for one, file in zip(first, files, strict=True))


def test_endings_are_those_that_ingest_takes_and_broken_images_stay(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.open(images / "labeled" / "a" / sorted((images / "labeled" / "a").iterdir())[0].name).convert("RGB").save(
        images / "pool" / "LOUD.JPEG"
    )
    (images / "pool" / "broken.png").write_bytes(b"no image")
    assert write_shifted(ShiftConfig(images=str(images), folders=("pool",), size=32), 0, tmp_path / "out") == 13
    assert (tmp_path / "out/pool/LOUD.JPEG").read_bytes() != (images / "pool/LOUD.JPEG").read_bytes()
    assert (tmp_path / "out/pool/broken.png").read_bytes() == b"no image"
    shown = capsys.readouterr().out
    assert "pool/broken.png: not an image in a known format" in shown
    assert "13 images corrupted, 1 broken ones left" in shown


def test_user_errors(images: Path, tmp_path: Path) -> None:
    (images / "empty").mkdir()
    with pytest.raises(UserError, match="empty of .* hold no images"):
        write_shifted(ShiftConfig(images=str(images), folders=("empty",)), 0, tmp_path / "out")
    with pytest.raises(UserError, match="there is no folder"):
        write_shifted(ShiftConfig(images=str(images), folders=("nope",)), 0, tmp_path / "out")
    with pytest.raises(ValidationError, match="there is no 'gausian_noise'"):
        ShiftConfig(images=str(images), folders=("pool",), corruptions=("gausian_noise",))
