"""What a model costs where it is used: parameters, bytes, and milliseconds on a CPU, beside its accuracy."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import nn

from selftrain.networks.models import input_square, load_model
from selftrain.plumbing.files import write_json
from selftrain.report import summary
from selftrain.report.mlflow_figures import log_figures
from selftrain.report.runs import EvaluatedRun, evaluated_model, load_runs

BATCHES = (1, 64)
SECONDS = 1.0
"""That each latency is measured for."""
HEADINGS = (*summary.HEADINGS[:4], "parameters", "MiB", "ms for 1", "ms for 64")


def footprint(folder: Path) -> dict[str, float]:
    """``parameters``, ``size_mib`` of the weights, and ``latency_ms_<B>``: the median time of B images at once, on one
    thread of this CPU.
    """
    model, _ = load_model(folder)
    size, _ = input_square(model)
    found = {
        "parameters": float(sum(parameter.numel() for parameter in model.parameters())),
        "size_mib": (folder / "model.safetensors").stat().st_size / 2**20,
    }
    return found | {f"latency_ms_{batch}": 1000 * latency(model, batch, size) for batch in BATCHES}


@torch.inference_mode()
def latency(model: nn.Module, batch: int, size: int) -> float:
    """Median seconds of a forward pass of (B, 3, S, S) on one thread."""
    from torch.utils.benchmark import Timer

    model = model.to(memory_format=torch.channels_last)
    images = torch.zeros(batch, 3, size, size).contiguous(memory_format=torch.channels_last)
    timer = Timer("model(images)", globals={"model": model, "images": images}, num_threads=1)
    return float(timer.blocked_autorange(min_run_time=SECONDS).median)


def write_footprints(evaluation: Path, models: Path, names: Collection[str], out: Path) -> None:
    """Write ``out/metrics.json`` and ``out/table.md``, print the table, and hand the figures to MLflow.

    Raises UserError for a model that is not the one that was evaluated.
    """
    from rich.console import Console

    runs = load_runs(evaluation, names)
    found = {run.name: footprint(evaluated_model(models, run)) for run in runs}
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "metrics.json", found)
    rows = [table_row(run, found[run.name]) for run in sorted(runs, key=lambda run: -found[run.name]["parameters"])]
    lines = [HEADINGS, ("---", "---", *["---:"] * (len(HEADINGS) - 2)), *rows]
    (out / "table.md").write_text("".join(f"| {' | '.join(line)} |\n" for line in lines), encoding="utf-8")
    for run in runs:
        log_figures(run.name, run.record["mlflow_run_id"], {f"footprint/{k}": v for k, v in found[run.name].items()})
    title = f"{evaluation.name.replace('_', ' ')}: what each costs on one thread of this CPU"
    Console(width=130).print(summary.runs_table(title, HEADINGS, rows))


def table_row(run: EvaluatedRun, found: dict[str, Any]) -> tuple[str, ...]:
    """One run as text, in the order of ``HEADINGS``."""
    return (
        *summary.table_row(run)[:4],
        f"{found['parameters']:,.0f}",
        f"{found['size_mib']:.2f}",
        *(f"{found[f'latency_ms_{batch}']:.2f}" for batch in BATCHES),
    )
