"""The FiftyOne dataset, in a real FiftyOne with its real database."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from selftrain.inspection.rounds import browsed_runs, history
from selftrain.inspection.tables import Pool, image_predictions, iter_pool, rows_of
from selftrain.inspection.views import all_views
from selftrain.params.browse import BrowseConfig
from selftrain.plumbing.errors import UserError
from selftrain.tables.keys import SPLITS, split_of
from tests.conftest import write_images
from tests.inspection.browsed import build, pool, project_of

__all__ = ["build", "pool"]


@pytest.mark.slow
def test_every_view_shows_what_its_filter_over_the_tables_selects(build: Any, pool: Pool) -> None:
    dataset = build(10**6)
    table = pl.concat(list(iter_pool(pool)))
    views = all_views(pool.runs)
    for view in views:
        expected = set(table.filter(view.rows())["key"].to_list())
        shown = dataset.load_saved_view(view.name).values("key")
        if view.name != "pool: leaks and duplicates":
            assert set(shown) == expected, view.name
        description = dataset.get_saved_view_info(view.name)["description"]
        assert description == f"{view.description} (all {len(expected):,} images)"
    assert set(dataset.list_saved_views()) == {view.name for view in views} | {"corrections"}
    names = [view.name for view in views]
    assert len(set(names)) == len(names)
    of_first, of_second = (sum(name.startswith(f"student{number}: ") for name in names) for number in (1, 2))
    assert of_second == of_first + 1, "labels flip from the second round on"
    assert sum(name.startswith("disagree: ") for name in names) == 3, "each two of three runs"
    assert len(dataset.load_saved_view("pool: label these first")) == 3
    assert dataset.load_saved_view("student2: look here first").values("student2_review") == list(range(1, 41))
    for part in (
        "low confidence", "filtered out", "over quota", "duplicated", "kept", "disagree", "flipped", "out-of-domain",
        "confident and wrong", "suspected", "leaks", "corrected by hand", "look here first",
    ):  # fmt: skip
        assert any(part in view.name for view in views)


@pytest.mark.slow
def test_a_views_description_counts_what_it_shows(build: Any, pool: Pool) -> None:
    dataset = build(5)
    for view in all_views(pool.runs):
        description = dataset.get_saved_view_info(view.name)["description"]
        splits = dataset.load_saved_view(view.name).values("split")
        shown = splits.count("unlabeled")
        if not view.shows_pairs:
            assert f"({shown:,} of " in description or f"(all {shown:,} images)" in description, view.name
            assert set(splits) <= {"unlabeled"}


@pytest.mark.slow
def test_samples_carry_predictions_decisions_truth_and_history(build: Any, pool: Pool, digits_rounds: Path) -> None:
    dataset = build()
    keys = dataset.values("key")
    unlabeled = {key for key in keys if split_of(key) == "unlabeled"}
    assert {split_of(key) for key in keys} == set(SPLITS)
    assert 15 < len(unlabeled) < 15 * 26
    table = image_predictions(pool.runs[1].predictions, unlabeled)
    rows = {row["key"]: row for row in rows_of(pool, unlabeled).iter_rows(named=True)}
    classes = [str(label) for label in range(10)]
    for sample in dataset.match({"split": "unlabeled"}):
        prediction, row = table[sample.key], rows[sample.key]
        assert sample.student1.label == str(prediction.label)
        assert sample.student1.confidence == pytest.approx(prediction.confidence)
        np.testing.assert_allclose(sample.student1.logits, prediction.log_probs)
        assert (sample.student2_decision, sample.student2_copies) == (row["student2_decision"], row["student2_copies"])
        assert (sample.student2_pseudo, sample.student2_review) == (str(row["student2_pseudo"]), row["student2_review"])
        assert sample.history == history(row, pool.runs, classes)
        assert Path(sample.filepath).read_bytes()[:4] == b"\x89PNG"
        assert sample.source.startswith("unlabeled/")
    assert "of 1,697 unlabeled images, at most 15 a view" in dataset.info["sample"]
    held_out = dataset.match({"split": "validation"}).first()
    assert held_out.truth.label in classes
    assert held_out.student2.label in classes
    assert held_out.student2_decision is None


@pytest.mark.slow
def test_rebuilding_keeps_what_people_did(build: Any) -> None:
    import fiftyone as fo
    from fiftyone import ViewField

    dataset = build(15)
    keys = sorted(dataset.match({"split": "unlabeled"}).values("key"))
    ids = dict(zip(dataset.values("key"), dataset.values("id"), strict=True))
    assert sorted(build(15).values("id")) == sorted(ids.values()), "nothing is made twice"
    tagged, labeled, corrected = keys[:3]
    dataset.match(ViewField("key") == tagged).tag_samples("reject")
    dataset.match(ViewField("key") == labeled).tag_labels("doubtful", label_fields="student1")
    dataset.match(ViewField("key") == corrected).set_values("corrected", [fo.Classification(label="4")])
    dataset.save_view("mine", dataset.limit(3))
    smaller = build(1)
    left = set(smaller.values("key"))
    assert {tagged, labeled, corrected} <= left
    assert len(left) < len(keys)
    again = build(15)
    touched = (tagged, labeled, corrected)
    found = dict(zip(again.values("key"), again.values("id"), strict=True))
    assert {key: found[key] for key in touched} == {key: ids[key] for key in touched}
    assert again.match_tags("reject").values("key") == [tagged]
    assert again.select_labels(tags="doubtful").values("key") == [labeled]
    assert again.match(ViewField("key") == corrected).values("corrected.label") == ["4"]
    assert again.has_saved_view("mine")


@pytest.mark.slow
def test_the_brains_results_are_stored_and_not_made_again(build: Any, capsys: Any) -> None:
    dataset = build(20, brain=True)
    unlabeled = dataset.match({"split": "unlabeled"})
    for name in ("uniqueness", "hardness", "mistakenness"):
        assert all(value is not None for value in unlabeled.values(name)), name
    assert dataset.list_brain_runs(type="visualization") == ["student2_map"]
    results = dataset.load_brain_results("student2_map")
    assert results.points.shape == (len(unlabeled), 2)
    assert np.unique(results.points, axis=0).shape[0] > len(unlabeled) / 2
    evaluated = {"teacher", "student1", "student2"}
    assert set(dataset.list_evaluations()) == {
        f"{run}_on_{what}" for run in evaluated for what in ("pool", "validation")
    }
    report = dataset.load_evaluation_results("student2_on_pool").metrics()
    known = [sample for sample in unlabeled if sample.truth]
    right = sum(sample.truth.label == sample.student2.label for sample in known)
    assert report["accuracy"] == pytest.approx(right / len(known))
    before = dataset.get_brain_info("student2_map").timestamp
    again = build(20, brain=True)
    assert again.get_brain_info("student2_map").timestamp == before


@pytest.mark.slow
def test_another_image_in_the_place_of_one_is_another_sample(build: Any, tmp_path: Path) -> None:
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


@pytest.mark.slow
def test_copies_stand_beside_what_they_repeat(ingest_config: Any, photos: Path, tmp_path: Path) -> None:
    import fiftyone as fo

    from selftrain.corpus.ingest import ingest
    from selftrain.inspection.dataset import build_dataset
    from selftrain.tables.manifest import iter_manifest
    from selftrain.tables.predictions import PredictionPart, write_part

    held_out = sorted((photos / "test" / "cat").iterdir())[0]
    pooled = sorted((photos / "pool").iterdir())
    pooled[0].write_bytes(held_out.read_bytes())
    (photos / "pool" / "again.png").write_bytes(pooled[1].read_bytes())
    write_images(photos / "pool" / "more", 3, seed=70)
    ingest(ingest_config(), 0, tmp_path / "corpus")
    for shard, table in iter_manifest(tmp_path / "corpus" / "unlabeled", ["key"]):
        rows = table.num_rows
        probs = np.full((rows, 3), np.log(1 / 3), np.float16)
        part = PredictionPart(
            table["key"].to_numpy(), np.zeros(rows, np.int32), np.full(rows, 1 / 3, np.float32), probs
        )
        write_part(
            tmp_path / "predictions" / "noisy_student" / "teacher" / "unlabeled",
            shard,
            part,
            ["cat", "dog", "owl"],
            "x",
        )
    pool = Pool(browsed_runs(project_of(tmp_path)), tmp_path / "corpus", None)
    config = BrowseConfig(dataset="selftrain-pairs-test", images_per_view=1, brain=False)
    try:
        dataset = build_dataset(config, pool, tmp_path / "media", tmp_path / "none.parquet")
        view = dataset.load_saved_view("pool: leaks and duplicates")
        told = list(zip(view.values("source"), view.values("pair"), view.values("repeats"), strict=True))
        assert len([repeats for *_, repeats in told if repeats is not None]) == 1
        assert "1 of 2 images" in dataset.get_saved_view_info("pool: leaks and duplicates")["description"]
        assert len(told) == 2
        (original,) = [source for source, _, repeats in told if repeats is None]
        (copy,) = [(source, repeats) for source, _, repeats in told if repeats is not None]
        assert told[0][1] == told[1][1]
        assert (original, copy[0]) in [("pool/50-001.png", "pool/again.png"), ("test/cat/30-000.png", "pool/50-000.png"), ("pool/again.png", "pool/50-001.png")]  # fmt: skip
        assert copy[1].split(" of ")[0] in ("leak", "duplicate")
    finally:
        fo.delete_dataset("selftrain-pairs-test")


@pytest.mark.slow
def test_runs_that_are_no_more_take_their_fields_along(build: Any, pool: Pool, tmp_path: Path) -> None:
    import fiftyone as fo
    import fiftyone.brain as fob

    from selftrain.inspection.dataset import build_dataset

    dataset = build(5, brain=True)
    theirs = dataset.match({"split": "unlabeled"})
    fob.compute_visualization(theirs, points=np.zeros((len(theirs), 2)), brain_key="my_map", method="manual")
    dataset.add_sample_field("mine", fo.StringField)
    fewer = Pool(pool.runs[:2], pool.corpus, pool.review)
    config = BrowseConfig(dataset=dataset.name, images_per_view=5, brain=True)
    again = build_dataset(config, fewer, tmp_path / "media", tmp_path / "none.parquet")
    again.reload()
    assert not any(name.startswith("student2") for name in again.get_field_schema())
    assert not any(name.startswith("student2") for name in [*again.list_indexes(), *again.list_evaluations()])
    assert not any("student2" in name for name in again.list_saved_views())
    assert again.list_brain_runs(type="visualization") == ["my_map"], "student1 has no embeddings; other people's stay"
    assert "mine" in again.get_field_schema()


@pytest.mark.slow
def test_a_dataset_of_an_older_version_keeps_its_tags(build: Any) -> None:
    dataset = build(5)
    keys = sorted(dataset.values("key"))
    dataset.match({"key": keys[0]}).tag_samples("reject")
    dataset.drop_index("split")
    dataset.delete_sample_field("split")
    again = build(5)
    assert again.match_tags("reject").values("key") == [keys[0]]
    assert set(again.distinct("split")) == set(SPLITS)


@pytest.mark.parametrize("name", ["../../x", "/etc/x", "a/b", "..", ".hidden", "a\\b", ""])
def test_a_datasets_name_is_no_path(name: str) -> None:
    from selftrain.plumbing.sections import parse_section

    with pytest.raises(UserError, match="browse.dataset"):
        parse_section({"dataset": name}, BrowseConfig, "browse")
    assert BrowseConfig(dataset="my photos, 日本 2.0").dataset == "my photos, 日本 2.0"
