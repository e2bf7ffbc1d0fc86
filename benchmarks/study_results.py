"""Studies' figures as a file: kept in the repository, and put back into MLflow, so that a study goes on elsewhere.

    python benchmarks/study_results.py export docs/studies.csv     # adds what MLflow has and the file has not
    python benchmarks/study_results.py import docs/studies.csv     # then `make study` runs what is missing

A study goes on only under the version that its figures are of: check the commit out that the file names.
"""

import argparse
import time
from pathlib import Path

import polars as pl
from mlflow.entities import Metric, RunTag

from selftrain.plumbing.tracking import connect, finished_runs
from selftrain.studies.results import EXPERIMENT

KEY = ["study", "arm", "seed", "run", "version"]
METRICS = ["test_accuracy", "validation_accuracy"]
COMMIT = "mlflow.source.git.commit"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["export", "import"])
    parser.add_argument("file", type=Path)
    options = parser.parse_args()
    there = from_mlflow()
    kept = pl.read_csv(options.file, schema_overrides={"seed": pl.String}) if options.file.exists() else there.clear()
    if options.what == "export":
        new = there.join(kept, on=KEY, how="anti")
        pl.concat([kept, new]).sort(KEY).write_csv(options.file, float_precision=6)
    else:
        new = kept.join(there, on=KEY, how="anti")
        to_mlflow(new)
    print(f"{len(new)} new figures")


def from_mlflow() -> pl.DataFrame:
    rows = [
        {**{name: run.data.tags[name] for name in KEY}, "commit": run.data.tags.get(COMMIT, "")}
        | {name: run.data.metrics.get(name) for name in METRICS}
        for run in finished_runs("tags.study != ''", EXPERIMENT)
    ]
    schema = dict.fromkeys([*KEY, "commit"], pl.String) | dict.fromkeys(METRICS, pl.Float64)
    return pl.DataFrame(rows, schema=schema).unique(KEY, keep="first", maintain_order=True)


def to_mlflow(rows: pl.DataFrame) -> None:
    client, experiment = connect(EXPERIMENT)
    now = int(time.time() * 1000)
    for row in rows.iter_rows(named=True):
        tags = {name: row[name] for name in KEY} | {"imported": "yes"}
        name = f"{row['study']}: {row['arm']} ({row['run']}, seed {row['seed']})"
        made = client.create_run(experiment, run_name=name, tags=tags)
        metrics = [Metric(name, row[name], now, 0) for name in METRICS if row[name] is not None]
        client.log_batch(made.info.run_id, metrics=metrics, tags=[RunTag(COMMIT, row["commit"])])
        client.set_terminated(made.info.run_id)


if __name__ == "__main__":
    main()
