"""Opening MLflow where it is worth looking: on the comparison of a pipeline's runs."""

import json
import subprocess
import sys
import urllib.parse
from collections.abc import Collection
from pathlib import Path

from selftrain.report.runs import load_runs
from selftrain.tracking import connect, tracking_uri

ADDRESS = "127.0.0.1"


def comparison_url(evaluation: Path, names: Collection[str], experiment_id: str, server: str) -> str:
    """MLflow's page that compares the evaluated runs of a pipeline."""
    run_ids = [run.about["mlflow_run_id"] for run in load_runs(evaluation, names)]
    query = {"runs": json.dumps(run_ids), "experiments": json.dumps([experiment_id])}
    return f"{server}/#/compare-runs?{urllib.parse.urlencode(query)}"


def serve_mlflow(evaluation: Path, names: Collection[str], port: int) -> None:
    """Print the comparison's address and, where MLflow is a database here, serve it until interrupted."""
    _, experiment_id = connect()
    uri = tracking_uri()
    remote = uri.startswith(("http://", "https://"))
    server = uri.rstrip("/") if remote else f"http://{ADDRESS}:{port}"
    print(f"runs compared: {comparison_url(evaluation, names, experiment_id, server)}")
    print(f"all runs:      {server}/#/experiments/{experiment_id}/runs", flush=True)
    if not remote:
        command = ["mlflow", "ui", "--backend-store-uri", uri, "--host", ADDRESS, "--port", str(port)]
        raise SystemExit(subprocess.run([sys.executable, "-m", *command], check=False).returncode)
