"""Which images of the pool a person should label next: doubtful ones, of many kinds, each typical of its kind.

Of the images that a run is least sure between two classes of, the share ``DOUBTFUL`` is grouped by its embeddings into
as many clusters as there are questions. The image nearest to each centre is asked for. The most doubtful images alone
are too much alike, and too odd, to teach a classifier of few labels much (Hacohen et al. 2022, "Active learning on a
budget", arXiv 2202.02794). docs/asking.md has a comparison.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from selftrain.plumbing.errors import UserError
from selftrain.project import Project
from selftrain.tables.corpus import REPEATS
from selftrain.tables.corrections import read_corrections
from selftrain.tables.embeddings import existing_embeddings, read_embeddings
from selftrain.tables.manifest import find_rows
from selftrain.tables.parquet import read_frame, write_frame
from selftrain.tables.predictions import iter_predictions

if TYPE_CHECKING:
    import polars as pl

DOUBTFUL = 0.6
MOST = 50_000
"""Doubtful images that are grouped at most, the most doubtful of them."""


def doubtful(margins: NDArray[np.floating], budget: int) -> NDArray[np.int64]:
    """Places of the images to choose from, ascending: the share ``DOUBTFUL`` with the lowest margins (N,)."""
    count = min(max(budget, round(DOUBTFUL * len(margins))), max(budget, MOST))
    return np.sort(np.argsort(margins, kind="stable")[:count])


def choose(vectors: NDArray[np.floating], margins: NDArray[np.floating], budget: int, seed: int) -> NDArray[np.int64]:
    """Places of the images to label, (budget,), the most doubtful first; all of them where there are not so many.

    ``vectors`` (N, D) are embeddings, ``margins`` (N,) the first class's probability less the second's; all of these
    images are doubtful already.
    """
    from sklearn.cluster import KMeans

    if len(vectors) <= budget:
        return np.argsort(margins, kind="stable")
    unit = vectors.astype(np.float32)
    unit = unit - unit.mean(axis=0)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    clusters = KMeans(budget, n_init=4, random_state=seed).fit(unit)
    found = []
    for cluster in range(budget):
        members = np.flatnonzero(clusters.labels_ == cluster)
        if len(members):
            distances = np.linalg.norm(unit[members] - clusters.cluster_centers_[cluster], axis=1)
            found.append(members[int(distances.argmin())])
    places = np.array(found, np.int64)
    return places[np.argsort(margins[places], kind="stable")]


def ask(project: Project, budget: int, run: str | None = None) -> tuple[str, "pl.DataFrame"]:
    """Write which images a person should label next to ``project.asked``; return the name of the run that doubts them
    and what ``questions`` returns. ``run`` is the first teacher of the first round by default.

    Raises UserError if there is no such run, and what ``questions`` raises.
    """
    if run is None and not project.rounds:
        raise UserError(f"{project.params_path}: there is no round; name a run by --run")
    of_run = project.run(run) if run is not None else project.teachers_of(project.rounds[0].name)[-1]
    asked = questions(of_run.predictions, project.corpus, project.corrections, budget, project.seed)
    write_frame(asked, project.asked)
    return of_run.name, asked


def questions(predictions: Path, corpus: Path, corrections: Path, budget: int, seed: int) -> "pl.DataFrame":
    """``key, rank, label, confidence, source, sha256`` of the images to label next, by a run's folder of predictions.

    ``label`` is the run's guess, a class's index. Copies, and images that a person has spoken of, are not asked for.
    Raises UserError if the run has no embeddings, or if nothing is left to ask.
    """
    import polars as pl

    folder = existing_embeddings(predictions, "`selftrain ask`")
    said = read_corrections(corrections)["key"] if corrections.exists() else pl.Series("key", [], pl.Int64)
    left_out = pl.concat([said, read_frame(corpus / REPEATS, ["key"])["key"]]).implode()
    frames = []
    for _, part in iter_predictions(predictions / "unlabeled"):
        two = np.sort(np.exp(part.log_probs.astype(np.float64)), axis=1)[:, -2:]
        margins = np.nan_to_num(two[:, 1] - two[:, 0], nan=0.0)
        columns = {"key": part.keys, "label": part.labels, "confidence": part.confidences, "margin": margins}
        frames.append(pl.DataFrame(columns).filter(~pl.col("key").is_in(left_out)))
    pool = pl.concat(frames)
    if not len(pool):
        raise UserError(f"{predictions}: every image of the pool is labeled or a copy; there is nothing to ask")
    candidates = pool[doubtful(pool["margin"].to_numpy(), budget).tolist()]
    embeddings = read_embeddings(folder, set(candidates["key"].to_list()))
    places = choose(embeddings.vectors, candidates["margin"].to_numpy(), budget, seed)
    asked = candidates[places.tolist()].with_columns(rank=pl.int_range(1, len(places) + 1, dtype=pl.UInt32))
    sources = find_rows(corpus / "unlabeled", asked["key"].to_list()).select("key", "source", "sha256")
    named: pl.DataFrame = asked.join(sources, on="key", maintain_order="left")
    return named.select("key", "rank", "label", "confidence", "source", "sha256")
