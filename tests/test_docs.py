"""What the pages say, against what there is: commands are run, parameters checked, messages looked up, schemas compared."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from selftrain.check import check_project
from selftrain.params.digits import DigitsConfig
from selftrain.plumbing.sections import load_params, merged
from selftrain.project import Project
from tests.repository import ROOT
from tests.repository import Project as Repository

DOCS = ROOT / "docs"


def blocks(page: str, language: str) -> list[str]:
    """The code blocks of a page in a language."""
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


@pytest.fixture
def photos(tmp_path: Path) -> Repository:
    """A folder with the tutorial's photographs, and nothing else of the project."""
    from selftrain.corpus.digits import write_digits

    counts = DigitsConfig(labels_per_class=8, validation_per_class=4, test_per_class=5, out_of_domain=20)
    write_digits(counts, 0, tmp_path / "digits")
    folder = tmp_path / "pictures"
    for split, name in (("labeled", "labeled"), ("test", "test"), ("unlabeled", "pool")):
        shutil.copytree(tmp_path / "digits" / split, folder / "photos" / name)
    user = Repository(folder)
    user.environment |= {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
    }
    return user


def shorten(params_yaml: Path) -> None:
    """The tutorial's project with less work in it."""
    params = yaml.safe_load(params_yaml.read_text())
    params["train"] |= {"model": "test_resnet", "image_size": 32, "steps": 30, "validate_every": 15}
    params["supervised"]["teacher"]["train"]["steps"] = 60
    params["select"]["threshold"] = 0.1
    del params["supervised"]["labeled_only"]
    params["rounds"] = {"student3": params["rounds"]["student3"] | {"teacher": "teacher", "select": {}}}
    params["runs"] = ["teacher", "student3"]
    params["train"]["noise"] = {"flip": 0}
    params["browse"] |= {"dataset": "selftrain-tutorial-test", "images_per_view": 3, "brain": False}
    params["hardware"] = {"threads": 1, "workers": 0}
    params_yaml.write_text(yaml.safe_dump(params, sort_keys=False))


def check_params_of(params: dict[str, Any], folder: Path, paths: bool = False) -> None:
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(params, sort_keys=False))
    check_project(Project(folder, path, load_params(path)), paths=paths)


REJECT_ONE = """
import fiftyone as fo
dataset = fo.load_dataset("selftrain-tutorial-test")
dataset.load_saved_view("student3: look here first").limit(1).tag_samples("reject")
"""


@pytest.mark.slow
def test_the_tutorials_commands_run_from_the_first_to_the_last(photos: Repository) -> None:
    first, *commands = [line for block in blocks("tutorial.md", "sh") for line in block.strip().splitlines()]
    assert first == "selftrain init my-project --labeled photos/labeled --pool photos/pool --test photos/test"
    photos.run(*first.split())
    project = Repository(photos.folder / "my-project")
    project.environment = photos.environment
    shorten(project.folder / "params.yaml")
    printed = {}
    for command in commands:
        if command == "selftrain corrections export":
            project.run("python", "-c", REJECT_ONE)
        printed[command] = project.run("sh", "-c", command)
    assert "student3" in printed["selftrain summary"]
    assert "1 corrections, 1 new" in printed["selftrain corrections export"]
    assert "student3 at HEAD → student3" in printed["selftrain diff student3 --rev HEAD"]
    assert "every link is as it was recorded" in printed["selftrain lineage models/noisy_student/best"]
    assert (project.folder / "exported" / "model.onnx").is_file()
    assert "models:/photos@champion" in printed["selftrain register photos"]


@pytest.mark.parametrize(
    "block", [*blocks("recipes.md", "yaml"), *blocks("algorithms.md", "yaml"), *blocks("gpus.md", "yaml")]
)
def test_recipes_fit_the_shipped_parameters(block: str, tmp_path: Path) -> None:
    shipped = yaml.safe_load((ROOT / "params.yaml").read_text())
    check_params_of(merged(shipped, yaml.safe_load(block)), tmp_path)


def constants() -> str:
    """Every piece of text in the package's code, one a line."""
    texts = []
    for file in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return "\n".join(texts)


def test_troubleshooting_quotes_messages_that_there_are() -> None:
    """What a message says between its names and numbers is in the code, word by word."""
    known = constants()
    quoted = re.findall(r"^> (.+)$", (DOCS / "troubleshooting.md").read_text(), re.MULTILINE)
    assert len(quoted) >= 20
    for message in quoted:
        words = re.split(r"…|'[^']*'|\d[\d.]*|[\w./-]*/[\w./-]+|[\w-]+\.(?:yaml|parquet)|: |; |, |\(|\)", message)
        phrases = [phrase.strip(" ;,") for phrase in words if len(phrase.split()) >= 3]
        assert phrases, message
        for phrase in phrases:
            # A name may stand at its end.
            assert any(piece in known for piece in (phrase, phrase.rpartition(" ")[0])), f"{phrase!r} of {message!r}"


KINDS = {"large_string": "string", "fixed_size_binary": "binary", "large_binary": "binary"}


def kind_of(column: Any) -> str:
    name = str(column.type).partition("[")[0]
    return KINDS.get(name, name)


def test_schemas_are_those_of_the_tables(digits_rounds: Path) -> None:
    corpus = digits_rounds / "data" / "corpus"
    places = {
        "data/corpus/<split>/manifest/part-*.parquet": next((corpus / "unlabeled" / "manifest").iterdir()),
        "data/corpus/duplicates.parquet": corpus / "duplicates.parquet",
        "data/corpus/truth.parquet": corpus / "truth.parquet",
        "predictions/<pipeline>/<run>/<split>/part-*.parquet": next(
            (digits_rounds / "predictions/noisy_student/student2/unlabeled").iterdir()
        ),
        "predictions/<pipeline>/<run>/embeddings/<split>/part-*.parquet": next(
            (digits_rounds / "predictions/noisy_student/student2/embeddings/unlabeled").iterdir()
        ),
        "selections/<pipeline>/<round>/part-*.parquet": next(
            (digits_rounds / "selections/noisy_student/student2").glob("*.parquet")
        ),
        "corrections.parquet": ROOT / "corrections.parquet",
        "review/<pipeline>/<round>.parquet": digits_rounds / "review/noisy_student/student2.parquet",
        "review/<pipeline>/out_of_domain.parquet": digits_rounds / "review/noisy_student/out_of_domain.parquet",
    }
    sections = re.split(r"^### ", (DOCS / "schemas.md").read_text(), flags=re.MULTILINE)[1:]
    assert [section.partition("\n")[0].strip("`") for section in sections] == list(places)
    for section, path in zip(sections, places.values(), strict=True):
        table = section.partition("\n## ")[0]
        rows = re.findall(r"^\| `(\w+)` \| ([\w ]+) \|", table, re.MULTILINE)
        told = {name: kind.replace("fixed size binary", "binary") for name, kind in rows}
        assert told == {column.name: kind_of(column) for column in pq.read_schema(path)}, path


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in DOCS.glob("*.md"))]
)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if not target.startswith(("http", "#")):
            assert ((ROOT / page).parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize(
    "page", sorted(path.relative_to(ROOT).as_posix() for path in [*DOCS.glob("*.md"), *ROOT.glob("notebooks/*.ipynb")])
)
def test_nothing_is_left_to_be_filled_in(page: str) -> None:
    assert not re.findall(
        r"\b(?:TODO|TBD|FIXME)\b|\b(?:TABLE|REVIEW|GAIN|SCALE|REPORT|CIFAR)$", (ROOT / page).read_text(), re.MULTILINE
    )


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in DOCS.glob("*.md"))]
)
def test_commands_that_pages_name_are_there(page: str) -> None:
    import typer

    from selftrain.cli import results, stages, start, studies, workspace  # noqa: F401, they add their commands to the app
    from selftrain.cli.app import app

    commands = typer.main.get_command(app)
    text = (ROOT / page).read_text()
    for line in re.findall(r"(?:`|^    |^)(selftrain [^`|#\n]+)", text, re.MULTILINE):
        words = line.split()[1:]
        command = commands.commands.get(words[0])
        assert command is not None, line
        if hasattr(command, "commands") and len(words) > 1 and re.fullmatch(r"[a-z]+", words[1]):
            command = command.commands.get(words[1])
            assert command is not None, line
        known = {option for parameter in command.params for option in parameter.opts} | {"--debug", "--help"}
        assert {word for word in words if word.startswith("--")} <= known, line
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|^    )make ([a-z]+)", text, re.MULTILINE))
    assert named <= targets, named - targets


def test_the_page_of_licences_has_every_library_that_is_locked_and_installed() -> None:
    listed = subprocess.run([sys.executable, "-c", LICENCES], cwd=ROOT, capture_output=True, text=True, check=True)
    # Another machine has other libraries of graphics cards, and none too many.
    rows = {
        line.split("|")[1].strip() for line in (ROOT / "docs" / "licences.md").read_text().splitlines() if "|" in line
    }
    installed = {line.split("|")[1].strip() for line in listed.stdout.splitlines() if "|" in line}
    assert len(installed) > 150
    assert installed - rows == set()


LICENCES = "import sys; sys.path.insert(0, '.ci'); import licences; print(licences.table())"


def test_files_that_pages_name_are_there() -> None:
    pages = [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *DOCS.glob("*.md"),
        *(ROOT / "pipelines").glob("*/README.md"),
    ]
    named = re.compile(r"`((?:tests|benchmarks|src|pipelines|notebooks|examples)/[\w./-]+)`")
    found = {(page.name, path) for page in pages for path in named.findall(page.read_text())}
    assert len(found) > 40
    examples = {(page, path) for page, path in found if "/my_" in path or "test_my_" in path or "NAME" in path}
    assert [(page, path) for page, path in sorted(found - examples) if not (ROOT / path).exists()] == []
