"""What manifests say."""

from pathlib import Path

from selftrain.tables.manifest import read_manifest


def keys_of(corpus: Path, split: str = "unlabeled") -> dict[str, int]:
    """The key of each image, by its source."""
    found = read_manifest(corpus / split, ["source", "key"])
    return dict(zip(found["source"].to_pylist(), found["key"].to_pylist(), strict=True))
