"""A run's final figures and charts, into the MLflow run that its training made."""

import time

from selftrain.report.runs import EvaluatedRun


def hand_to_mlflow(run: EvaluatedRun, charts: dict[str, str]) -> None:
    """Log the figures as metrics and the charts as artifacts; says so if the run is not in this MLflow.

    Doing it again replaces the artifacts and adds one more point to each metric, the newest of which counts.
    """
    from mlflow.entities import Metric
    from mlflow.exceptions import MlflowException

    from selftrain.errors import UserError
    from selftrain.tracking import connect

    run_id = run.about["mlflow_run_id"]
    try:
        client, _ = connect()
        client.get_run(run_id)
    except (UserError, MlflowException) as error:
        print(f"{run.name}: its figures are not in MLflow: {' '.join(str(error).split())[:200]}")
        return
    now = int(time.time() * 1000)
    numbers = {name: value for name, value in run.metrics.items() if isinstance(value, (int, float))}
    client.log_batch(run_id, metrics=[Metric(name, float(value), now, 0) for name, value in numbers.items()])
    for name, svg in charts.items():
        client.log_text(run_id, svg.replace("currentColor", "#333333"), f"charts/{name}.svg")
