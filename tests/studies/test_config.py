from pathlib import Path

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString

from selftrain.plumbing.errors import UserError
from selftrain.studies.study import _overrides, all_studies, experiment_name, load_study
from tests.repository import with_pipeline


@pytest.fixture
def pipelines(tmp_path: Path) -> Path:
    study = {
        "question": "?",
        "source": "Table 0",
        "expected": "!",
        "measure": ["student1"],
        "seeds": [3],
        "set": {"rounds": {"student1": {"train": {"steps": 9}}}},
        "arms": {
            "as it is": {},
            "otherwise, 2": {
                "set": {"predict": {"noise": ["dropout"]}, "a": {"b": None, "c": True}},
                "set_corpus": {"digits": {"labels_per_class": 7}},
                "measure": ["x"],
            },
        },
    }
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "studies.yaml").write_text(yaml.safe_dump({"noise": study}, sort_keys=False))
    return tmp_path


def test_arms_become_overrides_of_dvc(pipelines: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study, pipeline = load_study("noise", pipelines)
    assert pipeline == "one"
    project = pipelines / "project"
    for folder, name in ((project, "noisy_student"), (project / "pipelines" / "one", "one")):
        folder.mkdir(parents=True)
        (folder / "params.yaml").write_text(yaml.safe_dump(with_pipeline({"pipeline": name})))
    monkeypatch.chdir(project)
    steps, more = "++rounds.student1.train.steps=9", ["++predict.noise=[dropout]", "++a.b=null", "++a.c=true"]
    digits = "++digits.labels_per_class=7"
    assert study.overrides("as it is", 3, "noisy_student") == [steps, "++seed=3"]
    assert study.overrides("otherwise, 2", 3, "noisy_student") == [steps, *more, "++seed=3", digits]
    own = [f"pipelines/one/params.yaml:{override}" for override in (steps, *more, "++seed=3")]
    assert study.overrides("otherwise, 2", 3, "one") == [*own, digits, "++seed=3"]
    assert study.measured("as it is") == ["student1"]
    assert study.measured("otherwise, 2") == ["x"]
    assert experiment_name("noise", "otherwise, 2", 3) == "noise-otherwise-2-3"


VALUES = [
    "x, y", "my photos (old)", "null", "True", "1e-3", "it's", "a\\", "a\\'b", "images/c++", "${x}", "", "a: b", "é", "12",
    "svhn", "models/x-1.y", None, True, 0, -1.5, 1e-8, [1, "a b", [None]], [{"keep": 0.5, "names": ["it's", "b"]}], {},
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_what_dvc_is_told_means_what_was_written(value: object) -> None:
    parser = OverridesParser.create()
    (override,) = _overrides({"train": {"name": value}})
    parsed = parser.parse_override(override)
    assert parsed.key_or_group == "train.name"
    assert plain(parsed.value()) == value


def plain(value: object) -> object:
    """Hydra's own kinds of text as text."""
    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, list):
        return [plain(item) for item in value]
    return {key: plain(item) for key, item in value.items()} if isinstance(value, dict) else value


def test_mistakes_are_named(pipelines: Path) -> None:
    with pytest.raises(UserError, match="there is no study 'noize'; did you mean 'noise'"):
        load_study("noize", pipelines)
    path = pipelines / "one" / "studies.yaml"
    path.write_text(path.read_text().replace("question", "qestion"))
    with pytest.raises(UserError, match=r"studies.yaml: noise.qestion: unknown parameter; did you mean 'question'"):
        load_study("noise", pipelines)


@pytest.mark.parametrize("name", ["it's better", "a b", "-a", "a?", ""])
def test_a_study_has_a_name_that_git_and_mlflow_take(pipelines: Path, name: str) -> None:
    path = pipelines / "one" / "studies.yaml"
    path.write_text(yaml.safe_dump({name: yaml.safe_load(path.read_text())["noise"]}))
    with pytest.raises(UserError, match=r"studies.yaml: .* cannot name a study"):
        load_study("noise", pipelines)


def test_a_study_belongs_to_one_pipeline(pipelines: Path) -> None:
    (pipelines / "two").mkdir()
    text = (pipelines / "one" / "studies.yaml").read_text()
    (pipelines / "two" / "studies.yaml").write_text(text.replace("noise:", "size:", 1))
    assert all_studies(pipelines) == {"noise": "one", "size": "two"}
    (pipelines / "two" / "studies.yaml").write_text(text)
    with pytest.raises(UserError, match=r"two/studies.yaml: noise: .*one has a study of this name"):
        load_study("noise", pipelines)
