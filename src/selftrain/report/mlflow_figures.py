"""A run's final figures and charts, into the MLflow run that its training made."""

import time

from selftrain.report.runs import EvaluatedRun


def hand_to_mlflow(run: EvaluatedRun, charts: dict[str, str]) -> None:
    """Log an evaluated run's figures as metrics and its charts as artifacts.

    The accuracy on validation has a curve of that name; the exported weights' own is ``best_validation_accuracy``.
    """
    numbers = {name: value for name, value in run.metrics.set_items() if isinstance(value, (int, float))}
    numbers["best_validation_accuracy"] = numbers.pop("validation_accuracy")
    log_figures(run.name, run.record["mlflow_run_id"], numbers, charts)


def log_figures(name: str, run_id: str, figures: dict[str, float], charts: dict[str, str] | None = None) -> None:
    """Log figures and SVG charts to an MLflow run; says so if the run is not in this MLflow.

    Doing it again replaces the artifacts and adds one more point to each metric, the newest of which counts.
    """
    if not run_id:  # trained where MLflow is not installed
        return
    from selftrain.plumbing.errors import UserError, one_line
    from selftrain.plumbing.tracking import connect

    try:
        client, _ = connect()
    except UserError as error:
        print(f"{name}: its figures are not in MLflow: {error}")
        return
    from mlflow.entities import Metric
    from mlflow.exceptions import MlflowException

    try:
        client.get_run(run_id)
    except MlflowException as error:
        print(f"{name}: its figures are not in MLflow: {one_line(error)}")
        return
    now = int(time.time() * 1000)
    client.log_batch(run_id, metrics=[Metric(key, float(value), now, 0) for key, value in figures.items()])
    for chart, svg in (charts or {}).items():
        client.log_text(run_id, svg.replace("currentColor", "#333333"), f"charts/{chart}.svg")
