from pathlib import Path

import numpy as np

from tests.conftest import write_images


def test_what_a_browser_does_not_show_is_shown_as_png(tmp_path: Path) -> None:
    from PIL import Image

    from selftrain.corpus.ingest import ingest
    from selftrain.images.decode import decode
    from selftrain.inspection.media import extract
    from selftrain.params.ingest import IngestConfig
    from selftrain.tables.manifest import read_manifest

    for split in ("labeled", "validation", "test"):
        for seed, name in enumerate(("cat", "dog")):
            write_images(tmp_path / split / name, 1, seed=10 * len(split) + seed)
    (tmp_path / "pool").mkdir()
    deep = np.random.default_rng(0).integers(0, 65536, (8, 8), dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "pool" / "a.tif")
    write_images(tmp_path / "pool", 1, seed=3)
    splits = {split: {"images": split} for split in ("labeled", "validation", "test")}
    values = {"root": str(tmp_path), "unlabeled": {"images": "pool"}, **splits}
    ingest(IngestConfig.model_validate(values), 0, tmp_path / "corpus")
    unlabeled = tmp_path / "corpus" / "unlabeled"
    formats = {row["key"]: row["format"] for row in read_manifest(unlabeled, ["key", "format"]).to_pylist()}
    files = extract(unlabeled, set(formats), tmp_path / "media")
    assert sorted(formats.values()) == ["PNG", "TIFF"]
    assert all(path.suffix == ".png" for path in files.values())
    (shown,) = [files[key] for key, found in formats.items() if found == "TIFF"]
    seen = decode((tmp_path / "pool" / "a.tif").read_bytes())
    assert np.array_equal(np.asarray(Image.open(shown)), np.asarray(seen)), "as the model sees it"
