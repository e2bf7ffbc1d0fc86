"""FiftyOne Brain and evaluation: maps, uniqueness, hardness, mistakenness, confusion matrices.

From the embeddings and log-probabilities that ``predict`` stored, when the dataset is built; the App computes nothing.
What was made from the same tables stays.
"""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selftrain.inspection.fields import LOGITS_UP_TO
from selftrain.inspection.rounds import BrowsedRun
from selftrain.params.browse import BrowseConfig
from selftrain.tables.embeddings import embeddings_folder, read_embeddings
from selftrain.tables.predictions import made_from_digest

MEASURES = ("uniqueness", "hardness", "mistakenness")
MAP = "map"
"""Where the dataset remembers our map's name; other people's stay."""
TSNE_UP_TO = 5000
"""Images up to which the map is t-SNE's, a quarter of a minute; above it, principal components."""


def run_brain(dataset: Any, runs: list[BrowsedRun], config: BrowseConfig, num_classes: int) -> None:
    """Bring the brain's results up to date with the last run's tables, and every run's evaluations with the labels."""
    from fiftyone import ViewField

    pool = dataset.match(ViewField("split") == "unlabeled").sort_by("key")
    keys = pool.values("key")
    labeled = dataset.match(ViewField("truth.label").exists())
    truth = sorted(zip(labeled.values("key"), labeled.values("truth.label"), strict=True))
    made_from = _digest(keys, truth, [made_from_digest(run.predictions) for run in runs])
    if not config.brain or not keys or dataset.info.get("brain") == made_from:
        return
    last = runs[-1]
    # Of another last run, perhaps; the brain does not replace them by itself.
    for old in (*MEASURES, dataset.info.get(MAP), map_of(last)):
        if old and dataset.has_brain_run(old):
            dataset.delete_brain_run(old)
    folder = embeddings_folder(last.predictions.parent)
    if folder.is_dir():
        _from_embeddings(dataset, pool, read_embeddings(folder, set(keys)).vectors.astype(np.float32), last)
    else:
        print(f"{folder}: no embeddings, so no map and no uniqueness; `predict.embeddings: true` makes them")
    _from_predictions(pool, last, num_classes)
    _evaluate(dataset, runs)
    dataset.info = {**dataset.info, "brain": made_from}
    dataset.save()


def map_of(run: BrowsedRun) -> str:
    """The brain key of a run's map."""
    return f"{run.name}_map"


def _from_embeddings(dataset: Any, pool: Any, vectors: NDArray[np.float32], run: BrowsedRun) -> None:
    """A map of the pool, and how unlike its neighbours each image is."""
    import fiftyone.brain as fob

    dataset.info = {**dataset.info, MAP: map_of(run)}
    points = project(vectors)
    fob.compute_visualization(pool, points=points, embeddings=vectors, brain_key=map_of(run), method="manual")
    if len(vectors) > 3:
        fob.compute_uniqueness(pool, embeddings=vectors, progress=False)


def project(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Embeddings (N, D) as places on a map (N, 2): t-SNE of at most 30 principal components, or two of them."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    count, width = vectors.shape
    if count < 4 or width < 2:
        return np.zeros((count, 2), np.float32)
    few = PCA(min(30, width, count), random_state=0).fit_transform(vectors)
    if count > TSNE_UP_TO:
        return np.asarray(few[:, :2], dtype=np.float32)
    perplexity = min(30.0, (count - 1) / 3)
    placed = TSNE(2, perplexity=perplexity, init="pca", random_state=0, n_jobs=1).fit_transform(few)
    return np.asarray(placed, dtype=np.float32)


def _from_predictions(pool: Any, run: BrowsedRun, num_classes: int) -> None:
    """How hard each image is for the last run, and how likely, in its prediction, its teacher's label is a mistake."""
    import fiftyone.brain as fob

    if num_classes > LOGITS_UP_TO:
        print(f"{num_classes} classes: no hardness, which needs the logits of every label in the database")
    else:
        fob.compute_hardness(pool, run.name, progress=False)
    if run.teacher in pool.get_field_schema():  # its predictions may be gone
        fob.compute_mistakenness(pool, run.name, label_field=run.teacher, progress=False)


def _evaluate(dataset: Any, runs: list[BrowsedRun]) -> None:
    """Each run against the truth of the pool, where it is known, and against the validation labels."""
    from fiftyone import ViewField

    for run in runs:
        for split, name in (("unlabeled", "pool"), ("validation", "validation")):
            labeled = ViewField("truth.label").exists() & ViewField(f"{run.name}.label").exists()
            view = dataset.match((ViewField("split") == split) & labeled)
            eval_key = f"{run.name}_on_{name}"
            if dataset.has_evaluation(eval_key):
                dataset.delete_evaluation(eval_key)
            if len(view):
                view.evaluate_classifications(run.name, gt_field="truth", eval_key=eval_key, progress=False)


def _digest(keys: list[int], truth: list[tuple[int, str]], tables: list[str]) -> str:
    return hashlib.sha256(repr((keys, truth, tables)).encode()).hexdigest()[:32]
