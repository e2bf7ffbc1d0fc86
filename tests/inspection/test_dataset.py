"""The FiftyOne dataset, in a real FiftyOne with its real database."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from selftrain.inspection.config import BrowseConfig
from selftrain.inspection.rounds import Shown, shown_runs
from selftrain.inspection.tables import opinions, round_table, saved_views

PARAMS: dict[str, Any] = {
    "supervised": {"teacher": {}, "not_run": {}},
    "rounds": {"student1": {"teacher": "teacher"}, "student2": {"teacher": "student1"}},
}


@pytest.fixture(scope="module")
def runs(digits_rounds: Path) -> list[Shown]:
    return shown_runs(PARAMS, digits_rounds / "predictions", digits_rounds / "selections")


@pytest.fixture
def build(digits_rounds: Path, runs: list[Shown], tmp_path: Path) -> Iterator[Any]:
    """Build the dataset with so many images a view."""
    import fiftyone as fo

    from selftrain.inspection.dataset import build_dataset

    def make(images_per_view: int = 15) -> Any:
        config = BrowseConfig(dataset="selftrain-build-test", images_per_view=images_per_view)
        return build_dataset(config, runs, digits_rounds / "data" / "corpus", tmp_path / "media")

    yield make
    if fo.dataset_exists("selftrain-build-test"):
        fo.delete_dataset("selftrain-build-test")


def test_runs_without_tables_are_left_out(runs: list[Shown]) -> None:
    assert [(run.name, run.selection is not None) for run in runs] == [
        ("teacher", False), ("student1", True), ("student2", True),
    ]  # fmt: skip


@pytest.mark.slow
def test_every_view_shows_what_its_filter_over_the_tables_selects(
    build: Any, runs: list[Shown], digits_rounds: Path
) -> None:
    dataset = build(10**6)
    truth = digits_rounds / "data" / "corpus" / "truth.parquet"
    names = set()
    for run, previous, views in saved_views(runs):
        table = round_table(run, previous, truth)
        for view in views:
            expected = set(table.filter(view.rows()).collect()["key"].to_list())
            assert set(dataset.load_saved_view(view.name).values("key")) == expected, view.name
            names.add(view.name)
            assert dataset.get_saved_view_info(view.name)["description"]
    assert set(dataset.list_saved_views()) == names
    assert len(names) == 7 + 8
    for part in (
        "low confidence",
        "filtered out",
        "over quota",
        "duplicated",
        "kept",
        "disagree",
        "flipped",
        "out-of-domain",
    ):
        assert any(part in name for name in names)


@pytest.mark.slow
def test_samples_carry_opinions_decisions_and_truth(build: Any, runs: list[Shown], digits_rounds: Path) -> None:
    dataset = build()
    keys = dataset.values("key")
    assert 15 < len(keys) < 15 * 15
    table = opinions(runs[1].predictions, set(keys))
    rows = {
        row["key"]: row
        for row in pl.read_parquet(digits_rounds / "selections" / "student2" / "*.parquet").iter_rows(named=True)
    }
    for sample in dataset:
        opinion = table[sample.key]
        assert sample.student1.label == str(opinion.label)
        assert sample.student1.confidence == pytest.approx(opinion.confidence)
        np.testing.assert_allclose(sample.student1.logits, opinion.log_probs)
        assert (sample.student2_decision, sample.student2_copies) == (
            rows[sample.key]["decision"],
            rows[sample.key]["copies"],
        )
        assert Path(sample.filepath).read_bytes()[:4] == b"\x89PNG"
    assert "at most 15 images of each view, of 1,697" in dataset.info["sample"]


@pytest.mark.slow
def test_rebuilding_keeps_what_people_did(build: Any) -> None:
    from fiftyone import ViewField

    dataset = build(15)
    keys = sorted(dataset.values("key"))
    ids = dict(zip(dataset.values("key"), dataset.values("id"), strict=True))
    assert sorted(build(15).values("id")) == sorted(ids.values()), "nothing is made twice"
    tagged, labeled = keys[:2]
    dataset.match(ViewField("key") == tagged).tag_samples("reject")
    dataset.match(ViewField("key") == labeled).tag_labels("doubtful", label_fields="student1")
    smaller = build(1)
    left = set(smaller.values("key"))
    assert {tagged, labeled} <= left
    assert len(left) < len(keys)
    again = build(15)
    assert {
        key: id_ for key, id_ in zip(again.values("key"), again.values("id"), strict=True) if key in (tagged, labeled)
    } == {key: ids[key] for key in (tagged, labeled)}
    assert again.match_tags("reject").values("key") == [tagged]
    assert again.select_labels(tags="doubtful").values("key") == [labeled]


@pytest.mark.slow
def test_fiftyones_own_hardness_works(build: Any) -> None:
    import fiftyone.brain as fob

    dataset = build(5)
    fob.compute_hardness(dataset, "student1", progress=False)
    assert all(value is not None for value in dataset.values("hardness"))


@pytest.mark.slow
def test_another_image_in_the_place_of_one_is_another_sample(build: Any, digits_rounds: Path, tmp_path: Path) -> None:
    dataset = build(3)
    sample = dataset.first()
    wrong = tmp_path / "other.png"
    wrong.write_bytes(b"")
    old = sample.id
    sample.filepath = str(wrong)
    sample.tags = ["reject"]
    sample.save()
    rebuilt = build(3)
    (again,) = [one for one in rebuilt if one.key == sample.key]
    assert again.id != old
    assert again.tags == []
