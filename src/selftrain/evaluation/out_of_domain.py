"""Which images of the pool show perhaps none of the classes: those that the first teacher knows least of.

By the entropy of the first teacher's prediction. Students are worse judges: they were trained to be sure of such images
too, if the filter let some through.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from selftrain.evaluation.probabilities import probabilities
from selftrain.tables.predictions import prediction_parts, read_part
from selftrain.tables.truth import NO_CLASS

if TYPE_CHECKING:
    import polars as pl

SHARE = 0.05
"""Share of the pool that is listed."""


def suspects(tables: list[Path], truth: "pl.DataFrame", images: int) -> "tuple[pl.DataFrame, dict[str, Any]]":
    """The images of the pool with the highest entropy, and what there is to tell of them.

    ``tables`` are the unlabeled split's prediction tables of runs that were trained on labeled images alone, ``images``
    the most that are listed. Columns: ``rank, key, label, confidence, entropy`` (nats, of the runs' mean).
    """
    import polars as pl
    from scipy.special import entr

    schema = {"key": pl.Int64, "label": pl.Int32, "confidence": pl.Float32, "entropy": pl.Float64}
    listed, total = pl.DataFrame(schema=schema), 0
    for path in prediction_parts(tables[0]) if tables else ():
        parts = [read_part(table / path.name) for table in tables]
        mean = np.mean([probabilities(part.log_probs) for part in parts], axis=0)  # (N, C)
        entropy = entr(mean).sum(axis=1)
        arrays = (parts[0].keys, parts[0].labels, parts[0].confidences, entropy)
        rows = pl.DataFrame(dict(zip(schema, arrays, strict=True)), schema=schema)
        listed = pl.concat([listed, rows]).sort("entropy", "key", descending=[True, False]).head(images)
        total += len(rows)
    ranked = listed.head(max(1, round(SHARE * total))).with_row_index("rank", offset=1)
    known = ranked.join(truth, on="key")
    figures: dict[str, Any] = {"images": total, "listed": len(ranked)}
    if len(known):
        figures |= {"truth_known": len(known), "of_no_class": int((known["truth"] == NO_CLASS).sum())}
        figures["of_no_class_in_pool"] = int((truth["truth"] == NO_CLASS).sum())
    return ranked, figures
