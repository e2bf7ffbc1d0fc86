"""What to look at first, against cleanlab on the whole table and against counts by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from cleanlab.rank import get_label_quality_scores
from numpy.typing import NDArray
from sklearn.covariance import LedoitWolf

from selftrain.evaluation.out_of_domain import SHARE, suspects
from selftrain.evaluation.review import Rounds, found_errors, review
from selftrain.params.review import ReviewConfig
from selftrain.plumbing.errors import UserError
from selftrain.tables.embeddings import Embeddings, embeddings_folder, write_embeddings
from selftrain.tables.keys import shard_of
from selftrain.tables.manifest import read_manifest
from selftrain.tables.predictions import iter_predictions, made_from_digest
from selftrain.tables.selection import selection_digest

RUNS = ("teacher", "student1", "student2")


@pytest.fixture
def chain(digits_rounds: Path) -> Rounds:
    tables = (digits_rounds / name / "noisy_student" for name in ("predictions", "selections"))
    return Rounds({"student1": "teacher", "student2": "student1"}, *tables)


@pytest.fixture
def evaluation(chain: Rounds, tmp_path: Path) -> Path:
    """As much of the evaluations as ``review`` looks at."""
    for run in RUNS:
        tables: dict[str, Any] = {"predictions": made_from_digest(chain.predictions / run / "unlabeled")}
        if run != "teacher":
            tables["selection"] = selection_digest(chain.selections / run)
        details = tmp_path / "evaluation" / run / "details"
        details.mkdir(parents=True)
        (details / "run.json").write_text(json.dumps({"run": run, "tables": tables}))
    return tmp_path / "evaluation"


def test_the_list_is_cleanlabs_over_the_mean_of_all_runs(chain: Rounds, evaluation: Path, tmp_path: Path) -> None:
    corpus = chain.predictions.parent.parent / "data" / "corpus"
    summary = review(chain, evaluation, corpus, ReviewConfig(images=50), tmp_path / "out")
    for round_ in chain.teachers:
        listed = pl.read_parquet(tmp_path / "out" / f"{round_}.parquet")
        selected = pl.read_parquet(chain.selections / round_ / "*.parquet").sort("key")
        kept = (selected["decision"] == "kept").to_numpy()
        predictions = []
        for run in RUNS:
            parts = [part for _, part in iter_predictions(chain.predictions / run / "unlabeled")]
            probs = np.exp(np.concatenate([part.log_probs for part in parts]).astype(float))[kept]
            predictions.append(probs / probs.sum(axis=1, keepdims=True))
        mean = np.mean(predictions, axis=0)
        labels = selected["label"].to_numpy()[kept]
        quality = get_label_quality_scores(labels, mean, method="self_confidence", adjust_pred_probs=True)
        keys = selected["key"].to_numpy()[kept]
        order = np.lexsort((keys, quality))[:50]
        np.testing.assert_allclose(listed["quality"], quality[order], atol=1e-12)
        assert listed["key"].to_list() == keys[order].tolist()
        assert listed["rank"].to_list() == list(range(1, 51))
        other = [
            max((p, -c) for c, p in enumerate(row) if c != label)[1]
            for row, label in zip(mean[order], labels[order], strict=True)
        ]
        assert listed["suggested"].to_list() == [-c for c in other]
        assert listed["agreeing"].to_list() == sum((o.argmax(axis=1) == labels)[order].astype(int) for o in predictions).tolist()  # type: ignore[attr-defined]  # fmt: skip
        assert set(listed["runs"]) == {3}
        assert summary[round_]["kept"] == kept.sum()


def test_a_round_is_judged_by_its_own_branch() -> None:
    teachers = {"a1": "a", "a2": "a1", "b1": "b", "a3": "a2", "side": "a1"}
    rounds = Rounds(teachers, Path("p"), Path("s"))
    assert rounds.chain("a2") == ["a", "a1", "a2", "a3"]
    assert rounds.chain("b1") == ["b", "b1"]
    assert rounds.chain("a1") == ["a", "a1", "a2", "a3", "side"]
    assert rounds.runs == ["a", "a1", "b", "a2", "b1", "a3", "side"]


def test_no_rounds_give_empty_lists(chain: Rounds, tmp_path: Path) -> None:
    nothing = Rounds({}, chain.predictions, chain.selections)
    summary = review(
        nothing, tmp_path, chain.predictions.parent.parent / "data" / "corpus", ReviewConfig(), tmp_path / "out"
    )
    assert summary == {"out_of_domain": {"images": 0, "listed": 0}}
    assert len(pl.read_parquet(tmp_path / "out" / "out_of_domain.parquet")) == 0


def test_who_says_nan_has_no_prediction() -> None:
    from selftrain.evaluation.probabilities import probabilities

    log_probs = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]])).astype(np.float16)
    log_probs[1, 0] = np.nan
    np.testing.assert_allclose(probabilities(log_probs), [[0.5, 0.25, 0.25], [1 / 3, 1 / 3, 1 / 3]], atol=1e-3)


def test_found_errors_are_counted_in_both_orders() -> None:
    known = pl.DataFrame(
        {
            "key": range(100),
            "label": [0] * 100,
            "confidence": [number / 100 for number in range(100)],
            "quality": [1 - number / 100 for number in range(100)],
            # Wrong: the three least sure, the two with the lowest quality, one image of no class.
            "truth": [1, 1, 1] + [0] * 94 + [-1, 2, 2],
        }
    )
    figures = found_errors(known)
    assert (figures["wrong"], figures["truth_known"], figures["of_no_class"]) == (6, 100, 1)
    assert figures["first_1%"]["images"] == 1
    assert figures["first_1%"]["by_quality"] == {"wrong": 1, "precision": 1.0, "share_of_errors": 1 / 6}
    assert figures["first_5%"]["by_quality"] == {"wrong": 3, "precision": 0.6, "share_of_errors": 0.5}
    assert figures["first_5%"]["by_confidence"]["wrong"] == 3
    assert found_errors(known.clear()) == {}


def test_tables_that_were_not_evaluated_are_an_error(chain: Rounds, evaluation: Path, tmp_path: Path) -> None:
    path = evaluation / "student1" / "details" / "run.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"tables": record["tables"] | {"selection": "another"}}))
    corpus = chain.predictions.parent.parent / "data" / "corpus"
    with pytest.raises(UserError, match="student1: .* was made from other selection; run `dvc repro`"):
        review(chain, evaluation, corpus, ReviewConfig(), tmp_path / "out")


def test_without_embeddings_suspects_are_what_the_first_teacher_knows_least_of(chain: Rounds) -> None:
    run, corpus = chain.predictions / "teacher", chain.predictions.parent.parent / "data" / "corpus"
    parts = [part for _, part in iter_predictions(run / "unlabeled")]
    probs = np.exp(np.concatenate([part.log_probs for part in parts]).astype(float))
    keys = np.concatenate([part.keys for part in parts])
    probs /= probs.sum(axis=1, keepdims=True)
    entropy = -(probs * np.log(probs)).sum(axis=1)
    order = np.lexsort((keys, -entropy))
    truth = pl.DataFrame(
        {"key": keys[order[:3]].tolist(), "truth": [-1, -1, 4]}, schema={"key": pl.Int64, "truth": pl.Int32}
    )
    listed, record = suspects([run], corpus, truth, 10**6)
    assert listed["key"].to_list() == keys[order][: round(SHARE * len(keys))].tolist()
    np.testing.assert_allclose(listed["strangeness"], entropy[order][: len(listed)])
    assert (record["listed"], record["truth_known"], record["of_no_class"]) == (len(listed), 3, 2)
    few, _ = suspects([run], corpus, truth, 7)
    assert few.rows() == listed.head(7).rows()


def test_with_embeddings_suspects_lie_far_from_the_labeled_images(chain: Rounds, tmp_path: Path) -> None:
    """Squared Mahalanobis distances to the nearest mean of a class, image by image."""
    run, corpus, rng = tmp_path / "run", chain.predictions.parent.parent / "data" / "corpus", np.random.default_rng(0)
    run.mkdir()
    (run / "unlabeled").symlink_to(chain.predictions / "teacher" / "unlabeled")
    centres = rng.normal(size=(10, 6))
    keys, labels, vectors = {}, {}, {}
    for split in ("labeled", "validation", "unlabeled"):
        manifest = read_manifest(corpus / split, ["key", "label"])
        keys[split], labels[split] = manifest["key"].to_numpy(), manifest["label"].fill_null(0).to_numpy()
        noise = rng.normal(size=(len(keys[split]), 6)) * np.arange(1, 7) / 3
        vectors[split] = (centres[labels[split]] + noise).astype(np.float16)
        shards = np.array([shard_of(int(key)) for key in keys[split]])
        for shard in np.unique(shards):
            part = Embeddings(keys[split][shards == shard], vectors[split][shards == shard])
            write_embeddings(embeddings_folder(run, split), int(shard), part, "test")
    labeled = vectors["labeled"].astype(float)
    means = [labeled[labels["labeled"] == label].mean(axis=0) for label in range(10)]
    deviations = labeled - np.array(means)[labels["labeled"]]
    inverse = np.linalg.inv(LedoitWolf(assume_centered=True).fit(deviations).covariance_)

    def distances(split: str) -> NDArray[np.float64]:
        return np.array([min((each - mean) @ inverse @ (each - mean) for mean in means) for each in vectors[split]])

    found = distances("unlabeled") / distances("validation").mean()
    truth = pl.DataFrame(schema={"key": pl.Int64, "truth": pl.Int32})
    listed, _ = suspects([run], corpus, truth, 20)
    assert listed["key"].to_list() == keys["unlabeled"][np.argsort(-found)][:20].tolist()
    np.testing.assert_allclose(listed["strangeness"], np.sort(found)[::-1][:20], rtol=1e-6)
