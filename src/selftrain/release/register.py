"""The command ``register``: a model into MLflow's registry, with a signature and the alias ``champion``."""

import io
import os
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selftrain.code import PACKAGE
from selftrain.plumbing.errors import UserError, one_line
from selftrain.plumbing.secrets import masked
from selftrain.tables.records import RunRecord

if TYPE_CHECKING:
    import pandas as pd

CHAMPION = "champion"
PROGRAM = """from mlflow.models import set_model
from selftrain.release.served_model import ServedModel

set_model(ServedModel())
"""
"""What MLflow runs to have the model."""
LIBRARIES = (
    "mlflow", "numpy", "pandas", "pillow", "pydantic", "safetensors", "simplejpeg", "timm", "torch", "torchvision",
)  # fmt: skip
OF_SOME = ("pillow-heif",)
"""What goes with it where it is installed."""


def register(model_folder: Path, name: str) -> str:
    """Log a model to the MLflow run that trained it, register it under a name, and give it the alias.

    Returns its URI, ``models:/<name>@champion``. The package's code goes with it, no pickle does. Raises UserError if
    the folder is no run's model, its run is not in this MLflow, or MLflow takes no such name or not the model.
    """
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    from selftrain.plumbing.tracking import connect, tracking_uri

    if not name.strip() or set(name) & set("/:"):
        raise UserError(f"'{name}': MLflow takes no model's name that is empty or has / or : in it; give another NAME")
    run_id = RunRecord.read(model_folder / "run.json").mlflow_run_id
    client, _ = connect()
    import mlflow
    from mlflow.exceptions import MlflowException
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Array, ColSpec, DataType, Schema

    mlflow.set_tracking_uri(tracking_uri())
    try:
        run = client.get_run(run_id)
        deleted = run.info.lifecycle_stage == "deleted"
    except MlflowException:
        deleted = True
    if deleted:
        raise UserError(f"{model_folder}: its run {run_id} is not in MLflow at {masked(tracking_uri())}")
    outputs: list[Any] = [
        ColSpec(DataType.string, "label"),
        ColSpec(DataType.double, "confidence"),
        ColSpec(Array(DataType.double), "probabilities"),
    ]
    try:
        with mlflow.start_run(run_id=run_id), tempfile.TemporaryDirectory() as scratch:
            program = Path(scratch) / "served.py"
            program.write_text(PROGRAM, encoding="utf-8")
            logged = mlflow.pyfunc.log_model(
                name="model",
                python_model=str(program),
                artifacts={"model": str(model_folder)},
                code_paths=[str(PACKAGE)],
                input_example=_example(),
                signature=ModelSignature(Schema([ColSpec(DataType.binary, "image")]), Schema(outputs)),
                pip_requirements=_requirements(),
                registered_model_name=name,
            )
        client.set_registered_model_alias(name, CHAMPION, logged.registered_model_version)
    except MlflowException as error:
        raise UserError(f"MLflow at {masked(tracking_uri())} did not take it: {one_line(masked(str(error)))}") from None
    finally:
        # Logging took the run up again; it ended when its training did.
        client.set_terminated(run_id, run.info.status, run.info.end_time)
    return f"models:/{name}@{CHAMPION}"


def _requirements() -> list[str]:
    there = [library for library in OF_SOME if find_spec(library.replace("-", "_"))]
    return [f"{library}=={version(library)}" for library in (*LIBRARIES, *there)]


def _example() -> "pd.DataFrame":
    """What a request looks like: a grey picture."""
    import pandas as pd
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (32, 32), "grey").save(file, "PNG")
    return pd.DataFrame({"image": [file.getvalue()]})
