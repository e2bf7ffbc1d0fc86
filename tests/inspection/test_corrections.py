"""Corrections between the App and the file, in a real FiftyOne."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from selftrain.inspection.corrections import export_corrections, import_corrections
from selftrain.inspection.rounds import browsed_runs
from selftrain.inspection.tables import Pool
from selftrain.params.browse import BrowseConfig
from selftrain.plumbing.errors import UserError
from selftrain.tables.corrections import no_corrections, read_corrections, write_corrections
from selftrain.tables.manifest import scan_manifest
from tests.inspection.browsed import project_of


@pytest.fixture
def project(digits_rounds: Path, tmp_path: Path) -> Iterator[tuple[Any, Path, Path]]:
    """(build the dataset, the corrections file, the corpus)."""
    import fiftyone as fo

    from selftrain.inspection.dataset import build_dataset

    name, file = "selftrain-corrections-test", tmp_path / "corrections.parquet"
    runs = browsed_runs(project_of(digits_rounds))
    corpus = digits_rounds / "data" / "corpus"
    pool = Pool(runs, corpus, digits_rounds / "review" / "noisy_student")
    config = BrowseConfig(dataset=name, images_per_view=4, brain=False)
    yield lambda: build_dataset(config, pool, tmp_path / "media", file), file, corpus
    if fo.dataset_exists(name):
        fo.delete_dataset(name)


def unlabeled(dataset: Any) -> list[int]:
    return sorted(dataset.match({"split": "unlabeled"}).values("key"))


def say(dataset: Any, key: int, label: str | None) -> None:
    import fiftyone as fo
    from fiftyone import ViewField

    view = dataset.match(ViewField("key") == key)
    if label in (None, "no_copy"):
        view.tag_samples(label or "reject")
    else:
        view.set_values("corrected", [fo.Classification(label=label)])


def rows(file: Path) -> list[tuple[int, str, str | None, str]]:
    return read_corrections(file).select("key", "action", "label", "who").rows()


@pytest.mark.slow
def test_there_and_back_again(project: tuple[Any, Path, Path], digits_rounds: Path) -> None:
    import fiftyone as fo

    build, file, corpus = project
    dataset = build()
    first, second, third = unlabeled(dataset)[:3]
    say(dataset, first, None)
    say(dataset, second, "7")
    assert "2 corrections, 2 new, 0 changed, 0 taken back" in export_corrections(dataset, file, corpus, "ann")
    assert rows(file) == [(first, "reject", None, "ann"), (second, "correct", "7", "ann")]
    before = file.read_bytes()
    assert "0 new, 0 changed" in export_corrections(dataset, file, corpus, "bob")
    assert file.read_bytes() == before, "no news, the same bytes, so nothing reruns"

    say(dataset, second, "1")
    say(dataset, third, "2")
    dataset.match_tags("reject").untag_samples("reject")
    assert "2 corrections, 1 new, 1 changed, 1 taken back" in export_corrections(dataset, file, corpus, "bob")
    assert rows(file) == [(second, "correct", "1", "bob"), (third, "correct", "2", "bob")]

    # A colleague's file arrives: the App shows it when it is opened again, and on another machine from the start.
    theirs = read_corrections(file).filter(pl.col("key") == second)
    write_corrections(
        file, pl.concat([theirs, theirs.with_columns(key=pl.lit(first), sha256=sha256_of(corpus, first))])
    )
    dataset = build()
    shown = dataset.load_saved_view("corrections")
    assert dict(zip(shown.values("key"), shown.values("corrected.label"), strict=True)) == {first: "1", second: "1"}
    fo.delete_dataset(dataset.name)
    shown = build().load_saved_view("corrections")
    assert sorted(shown.values("key")) == [first, second]


def sha256_of(corpus: Path, key: int) -> bytes:
    manifest = pl.read_parquet(corpus / "unlabeled" / "manifest" / "*.parquet")
    return bytes(manifest.filter(pl.col("key") == key)["sha256"][0])


@pytest.mark.slow
def test_conflicts_are_told_and_each_command_takes_its_own_side(project: tuple[Any, Path, Path]) -> None:
    build, file, corpus = project
    dataset = build()
    key = unlabeled(dataset)[0]
    say(dataset, key, "3")
    row = {"key": key, "action": "correct", "label": "5", "who": "x", "when": None, "sha256": sha256_of(corpus, key)}
    write_corrections(file, pl.DataFrame([row], schema=no_corrections().schema))
    dataset = build()
    assert dataset.load_saved_view("corrections").values("corrected.label") == ["3"], "opening the App takes no side"
    summary = import_corrections(dataset, file, corpus, prefer="file")
    assert summary == (
        f"{file}: 1 corrections, 1 of them news to the App, 0 no longer in it"
        f"; image {key} is '3' in the App and '5' in the file: the file's was taken"
    )
    assert dataset.load_saved_view("corrections").values("corrected.label") == ["5"]
    say(dataset, key, "3")
    assert "1 changed" in export_corrections(dataset, file, corpus, "y")
    assert rows(file) == [(key, "correct", "3", "y")]

    # Taken back here and changed by a colleague: to open the App once more does not settle that.
    dataset.match({"key": key}).set_values("corrected", [None])
    write_corrections(file, pl.DataFrame([row | {"label": "8"}], schema=no_corrections().schema))
    dataset = build()
    told = export_corrections(dataset, file, corpus, "y")
    assert f"image {key} is not corrected in the App and '8' in the file: the App's was taken" in told
    assert rows(file) == []


@pytest.mark.slow
def test_a_correction_of_an_image_that_the_corpus_no_longer_has_is_no_others(project: tuple[Any, Path, Path]) -> None:
    build, file, corpus = project
    dataset = build()
    key = unlabeled(dataset)[0]
    say(dataset, key, "3")
    (shown,) = dataset.match({"key": key}).values("filepath")
    # The corpus was ingested anew, and another image has the key now.
    dataset.match({"key": key}).set_values("filepath", [str(Path(shown).with_name(f"{key}-0123456789ab.png"))])
    with pytest.raises(UserError, match=rf"image {key} in the App is none that the corpus has now"):
        export_corrections(dataset, file, corpus, "me")
    assert not file.exists()


@pytest.mark.slow
def test_what_makes_no_sense_is_named(project: tuple[Any, Path, Path]) -> None:
    build, file, corpus = project
    dataset = build()
    key = unlabeled(dataset)[0]
    say(dataset, key, "eleven")
    with pytest.raises(
        UserError, match=rf"image {key} \(unlabeled/.*\) in the App: there is no class 'eleven'; there are: 0, 1,"
    ):
        export_corrections(dataset, file, corpus, None)
    assert not file.exists()
    say(dataset, key, None)
    with pytest.raises(
        UserError, match=rf"image {key} \(unlabeled/.*\) in the App: tagged 'reject' and 'corrected' to 'eleven'"
    ):
        export_corrections(dataset, file, corpus, None)
    assert build().name == dataset.name, "and the App opens all the same, where it is taken back"
    dataset.set_values("corrected", [None] * len(dataset))
    dataset.untag_samples("reject")
    held_out = dataset.match({"split": "test"}).values("key")[0]
    say(dataset, held_out, None)
    with pytest.raises(UserError, match=rf"image {held_out} \(test/.*\) in the App: is a test image"):
        export_corrections(dataset, file, corpus, None)


@pytest.mark.slow
def test_no_copy_is_said_taken_back_and_excludes_a_label(project: tuple[Any, Path, Path]) -> None:
    build, file, corpus = project
    dataset = build()
    key = unlabeled(dataset)[0]
    say(dataset, key, "no_copy")
    assert "1 corrections, 1 new" in export_corrections(dataset, file, corpus, "ann")
    assert rows(file) == [(key, "no_copy", None, "ann")]
    assert build().load_saved_view("corrections").values("key") == [key]
    write_corrections(file, read_corrections(file).with_columns(action=pl.lit("reject")))
    import_corrections(dataset, file, corpus, prefer="file")
    assert dataset.match({"key": key}).values("tags") == [["reject"]]
    say(dataset, key, "no_copy")
    with pytest.raises(UserError, match="tagged 'reject' and tagged 'no_copy'; take all but one of them back"):
        export_corrections(dataset, file, corpus, "ann")


@pytest.mark.slow
def test_a_missing_file_takes_nothing_back(project: tuple[Any, Path, Path]) -> None:
    build, file, corpus = project
    dataset = build()
    key = unlabeled(dataset)[0]
    say(dataset, key, "3")
    export_corrections(dataset, file, corpus, "ann")
    file.unlink()
    with pytest.raises(UserError, match="no such file"):
        import_corrections(dataset, file, corpus, prefer="file")
    assert build().load_saved_view("corrections").values("key") == [key]
    assert "1 corrections, 1 new" in export_corrections(dataset, file, corpus, "ann")
    assert rows(file) == [(key, "correct", "3", "ann")]


@pytest.mark.slow
def test_a_project_that_moved_keeps_what_was_said(
    project: tuple[Any, Path, Path], tmp_path: Path, digits_rounds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from selftrain.inspection.dataset import build_dataset

    build, file, corpus = project
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    monkeypatch.chdir(before)
    dataset = build()
    first, second = unlabeled(dataset)[:2]
    say(dataset, first, None)
    say(dataset, second, "7")
    export_corrections(dataset, file, corpus, "ann")
    runs = browsed_runs(project_of(digits_rounds))
    pool = Pool(runs, corpus, digits_rounds / "review" / "noisy_student")
    config = BrowseConfig(dataset=dataset.name, images_per_view=4, brain=False)
    after.mkdir()
    monkeypatch.chdir(after)
    with pytest.raises(UserError, match=rf"is that of {before}; give this project's another name"):
        build_dataset(config, pool, after / "media", file)
    before.rmdir()
    moved = build_dataset(config, pool, after / "media", file)
    assert all(path.startswith(str(after)) for path in moved.values("filepath"))
    assert rows(file) == [(first, "reject", None, "ann"), (second, "correct", "7", "ann")]
    assert "0 new, 0 changed, 0 taken back" in export_corrections(moved, file, corpus, "ann")


@pytest.mark.slow
def test_an_image_that_left_and_came_back_takes_the_files_side(project: tuple[Any, Path, Path]) -> None:
    from selftrain.inspection.samples import bring_samples

    build, file, corpus = project
    dataset = build()
    key = unlabeled(dataset)[0]
    say(dataset, key, "3")
    export_corrections(dataset, file, corpus, "ann")
    media = Path(dataset.first().filepath).parent
    dataset.match({"key": key}).set_values("filepath", [str(media / "another-image.png")])
    assert key in bring_samples(dataset, {key}, corpus, media)
    assert build().match({"key": key}).values("corrected.label") == ["3"]
    assert "0 taken back" in export_corrections(dataset, file, corpus, "ann")


@pytest.mark.slow
def test_a_file_that_does_not_fit_is_refused_and_blocks_nothing(project: tuple[Any, Path, Path]) -> None:
    build, file, corpus = project
    dataset = build()
    key = unlabeled(dataset)[0]
    say(dataset, key, "3")
    export_corrections(dataset, file, corpus, "ann")
    good = file.read_bytes()
    write_corrections(file, read_corrections(file).with_columns(label=pl.lit("hores")))
    with pytest.raises(UserError, match="there is no class 'hores'"):
        import_corrections(dataset, file, corpus, prefer="file")
    assert build().match({"key": key}).values("corrected.label") != ["hores"], "opening the App passes it over"
    file.write_bytes(good)
    import_corrections(build(), file, corpus, prefer="file")
    assert dataset.match({"key": key}).values("corrected.label") == ["3"]


@pytest.mark.slow
@pytest.mark.parametrize("command", ["export", "import"])
def test_what_others_said_of_images_that_the_app_had_not_stays(project: tuple[Any, Path, Path], command: str) -> None:
    build, file, corpus = project
    dataset = build()
    shown = set(dataset.values("key"))
    pool = scan_manifest(corpus / "unlabeled").select("key").collect()["key"].to_list()
    theirs = next(key for key in pool if key not in shown)
    row = {"key": theirs, "action": "correct", "label": "3", "who": "bob", "when": None}
    write_corrections(file, pl.DataFrame([row | {"sha256": sha256_of(corpus, theirs)}], schema=no_corrections().schema))
    before = file.read_bytes()
    if command == "export":
        export_corrections(dataset, file, corpus, "ann")
    else:
        import_corrections(dataset, file, corpus, prefer="file")
    dataset = build()
    assert theirs in dataset.values("key")
    assert dataset.match({"key": theirs}).values("corrected.label") == ["3"]
    assert "0 taken back" in export_corrections(dataset, file, corpus, "ann")
    assert file.read_bytes() == before


@pytest.mark.slow
def test_a_dataset_that_somebody_else_made_is_left_alone(project: tuple[Any, Path, Path]) -> None:
    import fiftyone as fo

    build, _, _ = project
    theirs = fo.Dataset("selftrain-corrections-test")
    theirs.add_samples([fo.Sample(filepath="/theirs/1.png"), fo.Sample(filepath="/theirs/2.png")])
    with pytest.raises(UserError, match=r"that selftrain did not make; give this project's another name"):
        build()
    theirs.reload()
    assert theirs.values("filepath") == ["/theirs/1.png", "/theirs/2.png"]
    assert not theirs.persistent
