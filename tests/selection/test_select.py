import math
import random
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from selftrain.counters import Stream, mix
from selftrain.params.select import SelectConfig, select_config
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.files import read_json, write_json
from selftrain.selection.balance import plan_classes
from selftrain.selection.select import select
from selftrain.tables.keys import make_key
from selftrain.tables.parquet import read_arrow, write_arrow
from selftrain.tables.predictions import MADE_FROM
from selftrain.tables.seal import without_seal
from selftrain.tables.selection import scan_selection
from tests.selection.tables import CLASSES, SHARD, Rows, correction, write_corpus, write_predictions, write_rows


def brute_force(
    keys: list[int], rows: Rows, repeats: dict[int, str], config: SelectConfig, seed: int, said: dict[int, str | None]
) -> dict[int, Any]:
    threshold = float(np.float32(config.threshold))
    repeats = repeats if config.repeats == "drop" else {}
    said = {key: label for key, label in said.items() if repeats.get(key) != "leak"}
    repeats = {key: kind for key, kind in repeats.items() if key not in said}
    corrected = {key: CLASSES.index(label) for key, label in said.items() if label}

    def sampled(key: int) -> bool:
        return config.share == 1 or int(mix(seed, Stream.SELECTION_SHARE, key)) < config.share * 2**64

    def usable(key: int) -> bool:
        return key not in repeats and key not in said and sampled(key)

    candidates: dict[int, list[tuple[float, int]]] = {}
    for key, (label, confidence) in zip(keys, rows, strict=True):
        if usable(key) and float(np.float32(confidence)) > threshold:
            candidates.setdefault(label, []).append((-float(np.float32(confidence)), key))
    by_hand = {label: [key for key, own in corrected.items() if own == label] for label in range(len(CLASSES))}
    quota = config.per_class
    if quota == "auto":
        sizes = [len(candidates.get(label, [])) + len(by_hand[label]) for label in by_hand]
        quota = math.ceil(statistics.median(size for size in sizes if size))
    if quota == "all":
        unbalanced = brute_force_unbalanced(keys, rows, repeats, threshold, sampled)
        return unbalanced | {key: ("corrected", 1) if label else ("rejected", 0) for key, label in said.items()}
    copies = {}
    for label in by_hand:
        first = [key for _, key in sorted(candidates.get(label, []))]
        kept = first[: max(0, quota - len(by_hand[label]))] + by_hand[label]
        if not kept:
            continue
        total = max(len(kept), min(quota, len(kept) * config.max_copies))
        uniforms = sorted(kept, key=lambda key: int(mix(seed, Stream.SELECTION, key)))
        copies.update({key: total // len(kept) + (place < total % len(kept)) for place, key in enumerate(uniforms)})
    result = {}
    for key, (_, confidence) in zip(keys, rows, strict=True):
        if key in said:
            result[key] = ("corrected", copies[key]) if said[key] else ("rejected", 0)
        elif key in repeats:
            result[key] = (repeats[key], 0)
        elif not sampled(key):
            result[key] = ("not_sampled", 0)
        elif not float(np.float32(confidence)) > threshold:
            result[key] = ("low_confidence", 0)
        else:
            result[key] = ("kept", copies[key]) if key in copies else ("over_quota", 0)
    return result


def brute_force_unbalanced(
    keys: list[int], rows: Rows, repeats: dict[int, str], threshold: float, sampled: Callable[[int], bool]
) -> dict[int, Any]:
    return {
        key: (repeats[key], 0)
        if key in repeats
        else ("not_sampled", 0)
        if not sampled(key)
        else ("kept", 1)
        if float(np.float32(confidence)) > threshold
        else ("low_confidence", 0)
        for key, (_, confidence) in zip(keys, rows, strict=True)
    }


# Few distinct values, so that ties are common.
CONFIDENCE = st.sampled_from([0.0, 0.1, 0.3, 0.30000001, 0.5, 0.75, 0.9, 1.0, math.nan])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    rows=st.lists(st.tuples(st.integers(0, 2), CONFIDENCE), min_size=1, max_size=40),
    threshold=st.sampled_from([0.0, 0.3, 0.5]),
    per_class=st.sampled_from(["auto", "all", 1, 3, 10]),
    share=st.sampled_from([1.0, 0.5]),
    repeated=st.sampled_from(["drop", "keep"]),
    max_copies=st.integers(1, 4),
    seed=st.integers(0, 5),
    words=st.lists(st.sampled_from([None, *CLASSES]), max_size=12),
)
def test_against_brute_force(
    tmp_path_factory: pytest.TempPathFactory,
    rows: Rows,
    threshold: float,
    per_class: Any,
    max_copies: int,
    share: float,
    repeated: Any,
    seed: int,
    words: list[str | None],
) -> None:
    folder = tmp_path_factory.mktemp("select")
    keys = write_predictions(folder / "p", rows)
    repeats = {key: random.Random(key).choice(["leak", "duplicate"]) for key in keys[::5]}
    config = SelectConfig(
        threshold=threshold, per_class=per_class, max_copies=max_copies, share=share, repeats=repeated
    )
    said = dict(zip(random.Random(len(rows)).sample(keys, len(keys)), words, strict=False))
    corpus = write_corpus(folder / "corpus", repeats, keys)
    corrections = write_rows(folder / "corrections.parquet", [correction(key, label) for key, label in said.items()])
    try:
        summary = select(config, seed, folder / "p", corpus, folder / "out", corrections)
    except UserError:
        assert not any(
            (k not in repeats or repeated == "keep")
            and k not in said
            and (share == 1 or int(mix(seed, Stream.SELECTION_SHARE, k)) < share * 2**64)
            and float(np.float32(c)) > float(np.float32(threshold))
            for k, (_, c) in zip(keys, rows, strict=True)
        )
        return
    table = scan_selection(folder / "out").collect()
    decided = {row["key"]: (row["decision"], row["copies"]) for row in table.iter_rows(named=True)}
    assert decided == brute_force(keys, rows, repeats, config, seed, said)
    for row in table.filter(pl.col("decision") == "corrected").iter_rows(named=True):
        assert (CLASSES[row["label"]], row["confidence"]) == (said[row["key"]], 1.0)
    assert table["key"].to_list() == keys
    assert sum(summary["decisions"].values()) == summary["images"] == len(rows)


def test_the_papers_plan() -> None:
    quota, plans = plan_classes({0: 200_000, 1: 130_000, 2: 50_000, 3: 100}, {}, 130_000, 10**6)
    assert quota == 130_000
    assert [(plan.kept, plan.kept * plan.copies + plan.extra) for plan in plans] == [
        (130_000, 130_000), (130_000, 130_000), (50_000, 130_000), (100, 130_000),
    ]  # fmt: skip
    _, (bounded,) = plan_classes({0: 100}, {}, 130_000, 10)
    assert (bounded.copies, bounded.extra) == (10, 0)
    assert plan_classes({0: 1, 1: 4, 2: 0}, {}, "auto", 3)[0] == 3, (
        "the median of the classes that have any, rounded up"
    )


def test_nan_is_never_kept_and_all_nan_is_an_error(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "c", {}, write_predictions(tmp_path / "p", [(0, math.nan), (0, 0.9)]))
    select(SelectConfig(threshold=0), 0, tmp_path / "p", corpus, tmp_path / "out")
    assert scan_selection(tmp_path / "out").collect()["decision"].to_list() == ["low_confidence", "kept"]
    other = write_corpus(tmp_path / "d", {}, write_predictions(tmp_path / "q", [(0, math.nan)]))
    with pytest.raises(UserError, match="every confidence is NaN"):
        select(SelectConfig(threshold=0), 0, tmp_path / "q", other, tmp_path / "out")


def test_folders_may_have_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / 'it\'s a "test" {x} é'
    folder.mkdir()
    monkeypatch.chdir(folder)
    corpus = write_corpus(folder / "c", {}, write_predictions(folder / "p", [(0, 0.4), (1, 0.62)]))
    assert select(SelectConfig(threshold=0.5), 0, folder / "p", corpus, folder / "out")["decisions"]["kept"] == 1


def test_nothing_left_says_how_far_the_threshold_is(tmp_path: Path) -> None:
    keys = write_predictions(tmp_path / "p", [(0, 0.4), (1, 0.62)])
    with pytest.raises(
        UserError,
        match=r"the round's select.threshold, 0.9, filters out every image.*of those that may be used is 0.620",
    ):
        select(SelectConfig(threshold=0.9), 0, tmp_path / "p", write_corpus(tmp_path / "c", {}, keys), tmp_path / "out")
    every = write_corpus(tmp_path / "every", dict.fromkeys(keys, "leak"), keys)
    with pytest.raises(UserError, match=r"leaks, duplicates, rejected images and `select.share` leave no image at all"):
        select(SelectConfig(threshold=0.1), 0, tmp_path / "p", every, tmp_path / "out")


def test_the_same_input_gives_the_same_bytes_and_the_seed_moves_the_copies(tmp_path: Path) -> None:
    rows = [(number % 2 if number < 40 else 0, 0.5 + number / 1000) for number in range(100)]
    corpus = write_corpus(tmp_path / "c", {}, write_predictions(tmp_path / "p", rows))
    config = SelectConfig(per_class=35)
    digests = [
        select(config, seed, tmp_path / "p", corpus, tmp_path / f"out{number}")["digest"]
        for number, seed in enumerate((1, 1, 2))
    ]
    assert digests[0] == digests[1] != digests[2]
    assert read_json(tmp_path / "out0" / "summary.json", "")["balanced_images"] == 70


def test_rounds_overlay_the_defaults() -> None:
    params = {"select": {"threshold": 0.3, "max_copies": 2}, "rounds": {"s1": {"select": {"threshold": 0.9}}}}
    assert select_config(params, "s1", "p") == SelectConfig(threshold=0.9, max_copies=2)
    with pytest.raises(UserError, match=r"p: rounds.s1.select.treshold: unknown parameter; did you mean 'threshold'"):
        select_config({"rounds": {"s1": {"select": {"treshold": 1}}}}, "s1", "p")
    with pytest.raises(UserError, match="there is no round 's2'"):
        select_config(params, "s2", "p")


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("label", 3, r"row 2 .*label 3.*: its label is not from 0 to 2; remove the file"),
        ("label", -1, r"row 2 .*: its label is not from 0 to 2"),
        ("confidence", 7.0, r"row 2 .*confidence 7.0\): its confidence is not from 0 to 1"),
        ("confidence", -0.5, r"row 2 .*: its confidence is not from 0 to 1"),
        ("key", make_key("unlabeled", 0, 0), r"row 2 .*: its key is not above the row before"),
        ("label", None, r"row 2 .*: its key, label or confidence is empty"),
    ],
)
def test_a_table_is_not_believed_without_a_look(tmp_path: Path, column: str, value: Any, message: str) -> None:
    keys = write_predictions(tmp_path / "p", [(0, 0.9), (1, 0.8), (2, 0.7)])
    (part,) = (tmp_path / "p").glob("part-*.parquet")
    table = pq.read_table(part)
    values = table[column].to_pylist()
    values[1] = value
    place, field = table.column_names.index(column), table.schema.field(column)
    changed = table.set_column(place, field.with_nullable(True), pa.array(values, field.type))
    write_arrow(changed.replace_schema_metadata(without_seal(table.schema.metadata)), part)
    corpus = write_corpus(tmp_path / "c", {}, keys)
    for policy in ("threshold", "adaptive"):  # the second one reads the table before it decides
        with pytest.raises(UserError, match=message):
            select(SelectConfig(policy=policy), 0, tmp_path / "p", corpus, tmp_path / "out")


def test_a_table_that_is_not_of_one_piece_or_not_the_corpus(tmp_path: Path) -> None:
    rows = [(number % 3, 0.9) for number in range(3 * SHARD)]
    keys = write_predictions(tmp_path / "p", rows)
    corpus = write_corpus(tmp_path / "c", {}, keys)
    parts = sorted((tmp_path / "p").glob("part-*.parquet"))

    def fails(message: str, corpus: Path = corpus) -> None:
        with pytest.raises(UserError, match=message):
            select(SelectConfig(), 0, tmp_path / "p", corpus, tmp_path / "out")

    whole, found = parts[1].read_bytes(), 0
    right = select(SelectConfig(), 0, tmp_path / "p", corpus, tmp_path / "right")["digest"]
    for place in range(3, len(whole), 31):
        damaged = bytearray(whole)
        damaged[place] ^= 16
        parts[1].write_bytes(damaged)
        try:
            digest = select(SelectConfig(), 0, tmp_path / "p", corpus, tmp_path / "out")["digest"]
        except UserError as error:
            found += "part-00000001.parquet" in str(error)
        else:
            assert digest == right, "this policy does not read `log_probs`"
    assert found > 20
    parts[1].unlink()
    fails(r"part-00000001.parquet: the shard 1 has no predictions; remove the file and run `dvc repro`")
    parts[1].write_bytes(whole)
    fails(
        r"part-00000002.parquet: the shard 2 is not in the corpus", write_corpus(tmp_path / "d", {}, keys[: 2 * SHARD])
    )
    fails(rf"part-00000001.parquet: the image {keys[8]} is not in the corpus",
          write_corpus(tmp_path / "e", {}, [*keys[:8], *keys[9:]]))  # fmt: skip
    stray = make_key("unlabeled", 2, SHARD)
    fails(rf"part-00000002.parquet: the image {stray} is missing", write_corpus(tmp_path / "f", {}, [*keys, stray]))
    other = write_corpus(tmp_path / "g", {}, keys)
    write_json(other / "classes.json", [*CLASSES[1:], "another"])
    fails(r"was made for other classes than", other)
    table = read_arrow(parts[2])
    of_another = {**table.schema.metadata, MADE_FROM: b"another:model:images"}
    write_arrow(table.replace_schema_metadata(of_another), parts[2])
    fails(r"part-00000000.parquet and part-00000002.parquet are not of one model")
