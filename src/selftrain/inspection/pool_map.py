"""The pool as a map: a dot an image, likenesses beside each other."""

import numpy as np

from selftrain.counters import Stream, mix
from selftrain.inspection.brain import TSNE_UP_TO, project
from selftrain.inspection.rounds import BrowsedRun
from selftrain.inspection.tables import Pool, rows_of
from selftrain.plumbing.errors import UserError
from selftrain.report.charts import decision_colours
from selftrain.report.drawing import as_svg, panels_figure
from selftrain.tables.embeddings import existing_embeddings, read_embeddings
from selftrain.tables.manifest import scan_manifest


def pool_map_svg(pool: Pool, run: BrowsedRun, classes: list[str]) -> str:
    """A random sample of the pool by a round's embeddings: its labels, and what was decided for it.

    Raises UserError if ``predict`` wrote no embeddings of the round, or if the run is no round.
    """
    if run.selection is None:
        raise UserError(f"{run.name}: is no round, and a map shows what was decided for one")
    folder = existing_embeddings(run.predictions.parent, "a map")
    keys = scan_manifest(pool.corpus / "unlabeled").select("key").collect()["key"].to_numpy()
    sample = set(keys[np.argsort(mix(0, Stream.APP_MAP, keys), kind="stable")[:TSNE_UP_TO]].tolist())
    rows = rows_of(pool, sample)
    places = project(read_embeddings(folder, sample).vectors.astype(np.float32))
    figure, (by_label, by_decision) = panels_figure(2, height=4.6, width=10)
    labels, decisions = rows[f"{run.name}_label"].to_numpy(), rows[f"{run.name}_decision"].to_numpy()
    for label, name in enumerate(classes):
        of_class = places[labels == label]
        by_label.scatter(of_class[:, 0], of_class[:, 1], s=6, color=f"C{label % 10}")
        if len(of_class) and len(classes) <= 20:
            by_label.annotate(
                name, np.median(of_class, axis=0), fontsize=13, fontweight="bold", ha="center", va="center"
            )
    for decision, colour in decision_colours(decisions).items():
        decided = places[decisions == decision]
        by_decision.scatter(decided[:, 0], decided[:, 1], s=6, color=colour, label=decision.replace("_", " "))
    by_decision.legend(frameon=False, fontsize=9, markerscale=2)
    for axes, title in ((by_label, f"labels of {run.name}"), (by_decision, f"decisions for {run.name}")):
        axes.set_title(title, fontsize=10)
        axes.axis("off")
    return as_svg(figure)
