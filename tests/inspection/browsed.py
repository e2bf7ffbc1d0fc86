"""The digits' rounds as the App shows them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from selftrain.inspection.rounds import browsed_runs
from selftrain.inspection.tables import Pool
from selftrain.params.browse import BrowseConfig
from selftrain.project import Project
from selftrain.tables.manifest import find_rows
from selftrain.tables.parquet import write_frame
from tests.repository import with_pipeline

PARAMS: dict[str, Any] = {
    "supervised": {"teacher": {}, "not_run": {}},
    "rounds": {"student1": {"teacher": "teacher"}, "student2": {"teacher": "student1"}},
}


def project_of(folder: Path) -> Project:
    """A project whose parameters have a run that was not run."""
    return Project(folder, folder / "params.yaml", with_pipeline(PARAMS))


@pytest.fixture(scope="module")
def pool(digits_rounds: Path, tmp_path_factory: pytest.TempPathFactory) -> Pool:
    runs = browsed_runs(project_of(digits_rounds))
    asked = tmp_path_factory.mktemp("asked") / "noisy_student.parquet"
    corpus = digits_rounds / "data" / "corpus"
    keys = pl.read_parquet(runs[0].predictions / "part-*.parquet")["key"].sort()[[3, 40, 7, 9]]
    questions = find_rows(corpus / "unlabeled", keys.to_list()).select("key", "sha256")
    # Of one image the corpus has another now.
    other = pl.when(pl.col("key") == keys[3]).then(pl.lit(bytes(32))).otherwise(pl.col("sha256"))
    write_frame(questions.with_columns(sha256=other).with_row_index("rank", offset=1), asked)
    return Pool(runs, corpus, digits_rounds / "review" / "noisy_student", asked)


@pytest.fixture
def build(pool: Pool, tmp_path: Path) -> Iterator[Any]:
    """Build the dataset with so many images a view."""
    import fiftyone as fo

    from selftrain.inspection.dataset import build_dataset

    def make(images_per_view: int = 15, brain: bool = False) -> Any:
        config = BrowseConfig(dataset="selftrain-build-test", images_per_view=images_per_view, brain=brain)
        return build_dataset(config, pool, tmp_path / "media", tmp_path / "none.parquet")

    yield make
    if fo.dataset_exists("selftrain-build-test"):
        fo.delete_dataset("selftrain-build-test")
