"""Opening MLflow where it is worth looking: on a pipeline's runs, with the charts that compare them already chosen."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.parse
import webbrowser
from collections.abc import Collection
from pathlib import Path
from typing import Any

from selftrain.plumbing.secrets import masked
from selftrain.plumbing.tracking import connect, tracking_uri
from selftrain.report.runs import EvaluatedRun, load_runs

ADDRESS = "127.0.0.1"
STORE = "MLFLOW_BACKEND_STORE_URI"
"""Names the database to MLflow's server: everybody can read a command line, and the URI may hold a password."""
MODEL_TRAINING = {"workflowType": "machine_learning"}
"""The part of an address that opens MLflow under its sidebar “Model training” instead of “GenAI”."""
SHARED_VIEW = "mlflow.sharedViewState."
"""An experiment's tag of this name holds a view of its runs, which MLflow's page takes by ``viewStateShareKey``."""
LONGEST_TAG = 5000
"""Characters, in MLflow."""
ROUNDS, FIGURES, CURVES = "Rounds, a line each", "Final figures", "Curves, one over the other"
COLUMNS = {ROUNDS: 1, FIGURES: 2, CURVES: 3}
PARALLEL = (
    "coverage", "expected_precision", "pseudo_label_accuracy", "best_validation_accuracy", "test_accuracy",
    "test_calibration_error",
)  # fmt: skip
BARS = ("test_accuracy", "validation_nll", "test_calibration_error", "expected_precision")
LINES = ("validation_accuracy", "validation_loss", "loss", "labeled_loss", "unlabeled_loss", "student_learning_rate")


def compared_runs(runs: list[EvaluatedRun]) -> dict[str, Any]:
    """MLflow's view of a pipeline's runs: just these, parallel coordinates of the rounds, curves over each other."""
    ids = ", ".join(f"'{run.record['mlflow_run_id']}'" for run in runs)
    known = [name for name in PARALLEL if any(name.removeprefix("best_") in run.metrics for run in runs)]
    charts: list[dict[str, Any]] = [
        {"type": "PARALLEL", "selectedParams": [], "selectedMetrics": known, "showAllRuns": False, "section": ROUNDS},
        *({"type": "BAR", "metricKey": name, "runsCountToCompare": 20, "section": FIGURES} for name in BARS),
        *(
            {"type": "LINE", "metricKey": name, "selectedMetricKeys": [name], "xAxisKey": "step", "yAxisKey": "metric",
             "scaleType": "linear", "lineSmoothness": 0, "section": CURVES}
            for name in LINES
        ),
    ]  # fmt: skip
    for number, chart in enumerate(charts):
        section = chart.pop("section")
        chart |= {"uuid": f"c{number}", "metricSectionId": section, "deleted": False, "isGenerated": False}
    return {
        "searchFilter": f"attributes.run_id IN ({ids})",
        "orderByKey": "attributes.start_time",
        "orderByAsc": True,
        "runsHiddenMode": "SHOW_ALL",
        "compareRunCharts": charts,
        "compareRunSections": [
            {"uuid": name, "name": name, "display": True, "isReordered": False, "deleted": False, "isGenerated": False,
             "columns": columns}
            for name, columns in COLUMNS.items()
        ],
        "isAccordionReordered": True,
    }  # fmt: skip


def view_as_tag(runs: list[EvaluatedRun]) -> str:
    """The view as an experiment's tag; of more runs than a tag can name, every run of the pipeline is shown."""
    view = compared_runs(runs)
    tag = json.dumps(view, separators=(",", ":"))
    if len(tag) > LONGEST_TAG:
        view["searchFilter"] = f"tags.pipeline = '{runs[0].record['pipeline']}'"
        tag = json.dumps(view, separators=(",", ":"))
    return tag


def comparison_url(key: str, experiment_id: str, server: str) -> str:
    """The page of an experiment's runs under the view of a key."""
    query = urllib.parse.urlencode({"compareRunsMode": "CHART", "viewStateShareKey": key} | MODEL_TRAINING)
    return f"{server}/#/experiments/{experiment_id}/runs?{query}"


def table_url(runs: list[EvaluatedRun], experiment_id: str, server: str) -> str:
    """MLflow's page that puts the runs' parameters and figures side by side."""
    query = {"runs": json.dumps([run.record["mlflow_run_id"] for run in runs]), "experiments": f'["{experiment_id}"]'}
    query |= MODEL_TRAINING
    return f"{server}/#/compare-runs?{urllib.parse.urlencode(query)}"


def serve_mlflow(evaluation: Path, names: Collection[str], port: int) -> None:
    """Print the comparison's address and open it; where MLflow is a database here, serve it until interrupted."""
    client, experiment_id = connect()
    runs = load_runs(evaluation, names)
    key = f"selftrain-{evaluation.name}"
    client.set_experiment_tag(experiment_id, SHARED_VIEW + key, view_as_tag(runs))
    uri = tracking_uri()
    remote = uri.startswith(("http://", "https://"))
    server = uri.rstrip("/") if remote else f"http://{ADDRESS}:{port}"
    url = comparison_url(key, experiment_id, server)
    print(f"runs compared: {comparison_url(key, experiment_id, masked(server))}")
    print(f"side by side:  {table_url(runs, experiment_id, masked(server))}", flush=True)
    if remote:
        _open(url)
        return
    command = ["mlflow", "ui", "--host", ADDRESS, "--port", str(port)]
    serving = subprocess.Popen([sys.executable, "-m", *command], env=os.environ | {STORE: uri})
    try:
        while serving.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex((ADDRESS, port)) == 0:
                    _open(url)
                    break
            time.sleep(0.5)
        raise SystemExit(serving.wait())
    finally:
        # SIGTERM and Ctrl-C end this process by an exception; the server ends with it.
        serving.terminate()
        serving.wait()


def _open(url: str) -> None:
    """Show a page to the person at the terminal, if there is one and a browser."""
    if sys.stdout.isatty():
        webbrowser.open(url)
