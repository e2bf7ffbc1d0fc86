"""What is built and installed, from a folder of images to a report."""

import csv
import html
import os
import random
import re
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
import yaml

from tests.conftest import write_images
from tests.start.shop import images

__all__ = ["images"]


FRAGMENTS = (
    "<script>alert(1)", "[red]", "$x_{1$", "{{ x }}", "{% x %}", "%s", "`touch pwned`", "$(touch pwned)", "=1+1", "@SUM(A1)",
    "'", '"', "&amp;", "\\", "日本", "e\u0301", "#", "|", "*", "_", "~", "<b>", ";", "--help", "null", "${HOME}",
)  # fmt: skip
"""What is markup, mathematics, a template, a formula, a shell's word or an option elsewhere."""


def nasty_names(count: int, seed: int) -> list[str]:
    """All the fragments, dealt out at random: each is in one of the names."""
    dealt = random.Random(seed).sample(FRAGMENTS, len(FRAGMENTS))
    return sorted(" ".join(dealt[place::count]) for place in range(count))


@pytest.mark.slow
def test_a_wheel_makes_a_project_and_an_upgrade_is_noticed(images: Path, tmp_path: Path) -> None:
    """Build the wheel, install it in an environment of its own, init, repro, and again after a changed algorithm.

    What the user calls classes and files is markup, mathematics, a formula and a shell word elsewhere, and text here.
    """
    from tests.repository import ROOT

    *classes, file_name = nasty_names(3, seed=int(os.environ.get("SELFTRAIN_NASTY", "0")))
    for old, new in zip(("cat: tabby", "no"), classes, strict=True):
        (images / "labeled" / old).rename(images / "labeled" / new)
    write_images(images / "labeled" / "all classes", 10, seed=77)
    (images / "pool" / "9-000.png").rename(images / "pool" / f"{file_name}.png")
    # As the program knows them: NFC.
    classes = sorted(unicodedata.normalize("NFC", name) for name in (*classes, "all classes"))

    source = tmp_path / "source"
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    environment = tmp_path / "venv"
    # The libraries come from this environment; the package does not.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python = environment / "bin" / "python"
    site = next(environment.glob("lib/python*/site-packages"))
    libraries = [path for path in sys.path if path.endswith("site-packages")]
    hidden = tmp_path / "libraries"
    hidden.mkdir()
    for library in libraries:
        for path in Path(library).iterdir():
            if "selftrain" not in path.name.lower() and not (hidden / path.name).exists():
                (hidden / path.name).symlink_to(path)
    (site / "libraries.pth").write_text(f"{hidden}\n")

    def install() -> None:
        shutil.rmtree(tmp_path / "dist", ignore_errors=True)
        build = [
            "uv",
            "build",
            "--quiet",
            "--no-build-isolation",
            "--wheel",
            "--out-dir",
            str(tmp_path / "dist"),
            str(source),
        ]
        subprocess.run([sys.executable, "-m", *build], check=True)
        (wheel,) = (tmp_path / "dist").glob("*.whl")
        install = ["uv", "pip", "install", "--quiet", "--no-deps", "--reinstall", "--python", str(python), str(wheel)]
        subprocess.run([sys.executable, "-m", *install], check=True)

    database = {name: value for name, value in os.environ.items() if name.startswith("FIFTYONE_")}

    def run(*command: str) -> str:
        path = f"{environment / 'bin'}:{Path(sys.executable).parent}:/usr/bin:/bin"
        result = subprocess.run(
            command, cwd=tmp_path / "shop", env={"PATH": path, "HOME": str(tmp_path), "DVC_NO_ANALYTICS": "1"} | database,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    def repro(*words: str) -> list[str]:
        lines = run(str(python), "-m", "dvc", "repro", *words).splitlines()
        return [line.split("'")[1] for line in lines if line.startswith("Running stage")]

    install()
    (tmp_path / "shop").mkdir()
    run(
        "selftrain",
        "init",
        ".",
        "--labeled",
        str(images / "labeled"),
        "--pool",
        str(images / "pool"),
        "--model",
        "test_resnet",
    )
    path = tmp_path / "shop" / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["train"] |= {"steps": 4, "validate_every": 2, "image_size": 32, "noise": {"flip": 0}}
    params["supervised"] = {"teacher": {"train": {"algorithm": {"name": "supervised"}}}}
    params["rounds"] = {name: params["rounds"][name] for name in ("student1", "student2")}
    params["select"]["threshold"] = 0.0
    params["runs"] = ["teacher", "student1", "student2"]
    params["hardware"] = {"workers": 0, "threads": 1}
    path.write_text(yaml.safe_dump(params, sort_keys=False))
    first = repro()
    assert {"ingest@data/corpus", "train_supervised@teacher", "train@student1", "report@noisy_student"} <= set(first)
    assert "student1" in run("selftrain", "summary")
    page = (tmp_path / "shop" / "reports" / "noisy_student" / "index.html").read_text()
    difference = tmp_path / "shop" / "difference.html"
    run("selftrain", "diff", "student1", "student2", "--html", str(difference))
    card = (tmp_path / "shop" / "models" / "noisy_student" / "best" / "README.md").read_text()
    for text in (page, difference.read_text(), card):
        assert not re.search(r"<(script>alert|b>)", text), "markup"
    assert all(name in html.unescape(page) for name in classes)
    assert all(word in card for word in re.findall(r"\w{3,}", " ".join(classes)))
    run("selftrain", "browse", "--build-only")
    assert not list(tmp_path.rglob("pwned")), "nothing of a name was run"
    evaluation = tmp_path / "shop" / "evaluation" / "noisy_student" / "student1"
    with (evaluation / "class_balance.csv").open(newline="") as file:
        cells = [row["class"] for row in csv.DictReader(file)]
    assert sorted(cells) == sorted(f"'{name}" if name[0] in "=+-@" else name for name in classes)
    assert repro() == ["installed_code@selftrain"], "it looks whether the package was upgraded, and that is all"
    algorithm = source / "src" / "selftrain" / "algorithms" / "noisy_student.py"
    algorithm.write_text(algorithm.read_text().replace("class NoisyStudent(", "ADDED = 1\n\n\nclass NoisyStudent("))
    install()
    repro("--single-item", "installed_code@selftrain")
    again = repro("--dry")
    assert [stage for stage in again if stage.startswith("train")] == ["train@student1", "train@student2"]
    # More unlabeled images do not train the teacher again; it labels them.
    write_images(images / "pool", 1, seed=78)
    repro("--single-item", "ingest@data/corpus")
    grown = repro("--dry")
    assert "predict@teacher" in grown
    assert "train_supervised@teacher" not in grown
