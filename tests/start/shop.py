"""Images of somebody who has not begun yet."""

from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import write_images


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Photographs of 100 × 80 pixels: two classes of ten, a pool of twelve."""
    root = tmp_path / "my images"
    for name in ("cat: tabby", "no"):
        write_images(root / "labeled" / name, 10, seed=len(name))
    write_images(root / "pool", 12, seed=9)
    for path in root.rglob("*.png"):
        Image.open(path).resize((100, 80)).save(path)
    return root
