"""MLflow's page, served and looked at in a real browser."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import mlflow
import pytest
import yaml

from tests.browser import CHROMIUM, FLAGS, listens
from tests.conftest import free_port
from tests.report.evaluated import write_run
from tests.repository import PIPELINE, with_pipeline


def wait_for(port: int, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, "MLflow's page ended by itself"
        if listens(port):
            return
        time.sleep(0.5)
    raise TimeoutError


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None and "CI" not in os.environ, reason="needs Debian's chromium; CI installs it")
def test_it_opens_on_the_comparison(tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = mlflow.MlflowClient(uri)
    experiment = client.create_experiment("selftrain", tags={"mlflow.experimentKind": "custom_model_development"})
    figures: dict[str, Any] = {
        "coverage": 0.5,
        "pseudo_label_accuracy": 0.9,
        "expected_precision": 0.9,
        "test_accuracy": 0.9,
    }
    for name, teacher in (("teacher", None), ("student1", "teacher"), ("student2", "student1"), ("other", None)):
        run = client.create_run(experiment, run_name=name)
        for step in range(3):
            client.log_metric(run.info.run_id, "validation_accuracy", 0.5 + step / 10, step=step)
        for figure, value in figures.items():
            if teacher:
                client.log_metric(run.info.run_id, figure, value)
        client.set_terminated(run.info.run_id)
        if name != "other":
            write_run(tmp_path / "evaluation" / PIPELINE["pipeline"], name, teacher, **(figures if teacher else {}))
            path = tmp_path / "evaluation" / PIPELINE["pipeline"] / name / "details" / "run.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | {"mlflow_run_id": run.info.run_id}))
    rounds = {"student1": {"teacher": "teacher"}, "student2": {"teacher": "student1"}}
    params = with_pipeline({"supervised": {"teacher": {}}, "rounds": rounds})
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "selftrain", "mlflow", "--port", str(port)],
        cwd=tmp_path,
        env=os.environ | {"MLFLOW_TRACKING_URI": uri},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        wait_for(port, process)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            page = browser.new_page(viewport={"width": 1500, "height": 2400})
            page.set_default_timeout(60_000)
            page.goto(url)
            for text in (
                "Rounds, a line each",
                "Parallel Coordinates",
                "Final figures",
                "Curves, one over the other",
                "3 matching runs",
            ):
                page.get_by_text(text, exact=False).first.wait_for()
            if shot := os.environ.get("SELFTRAIN_SCREENSHOT"):
                page.screenshot(path=shot)
            assert "workflowType=machine_learning" in page.url
            assert page.locator("aside").get_by_text("Runs", exact=True).count() == 1
            browser.close()
        assert answers(port, host="attacker.example", origin=None) == 403, "rebinding"
        assert answers(port, host=f"127.0.0.1:{port}", origin="http://attacker.example") == 403
        process.terminate()
        assert process.wait(timeout=120) == 128 + signal.SIGTERM
        assert not listens(port), "its server ended with it"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def answers(port: int, host: str, origin: str | None) -> int:
    """The status of a request to MLflow that changes something."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    headers = {"Host": host, "Content-Type": "application/json"} | ({"Origin": origin} if origin else {})
    connection.request("POST", "/api/2.0/mlflow/experiments/create", json.dumps({"name": f"by {host}"}), headers)
    return connection.getresponse().status
