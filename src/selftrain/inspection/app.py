"""Opening the FiftyOne App on this machine, for this machine."""

import os
from pathlib import Path
from typing import Any

from selftrain.config import parse_section
from selftrain.inspection.config import BrowseConfig
from selftrain.inspection.rounds import shown_runs
from selftrain.stage import WORK

ADDRESS = "127.0.0.1"


def browse(
    params: dict[str, Any], params_path: str, corpus: Path, pipeline: str | None, port: int, build_only: bool
) -> None:
    """Build or update the dataset and, unless ``build_only``, serve the App until it is interrupted.

    ``pipeline`` names the folder under ``predictions`` and ``selections`` of one of ``pipelines/``; None: the main job.
    """
    config = parse_section(params.get("browse"), BrowseConfig, f"{params_path}: browse")
    runs = shown_runs(params, Path("predictions") / (pipeline or ""), Path("selections") / (pipeline or ""))
    os.environ.setdefault("FIFTYONE_DO_NOT_TRACK", "true")
    import fiftyone as fo

    from selftrain.inspection.dataset import build_dataset

    dataset = build_dataset(config, runs, corpus, WORK / "media" / config.dataset)
    print(f"FiftyOne dataset '{dataset.name}': {len(dataset):,} images, {len(dataset.list_saved_views())} saved views")
    if build_only:
        return
    # In a container FiftyOne would bind every address whatever its settings say; the argument binds just this one.
    session = fo.launch_app(dataset, address=ADDRESS, port=port, auto=False)
    print(f"FiftyOne App: http://{ADDRESS}:{port}/datasets/{dataset.name}  (Ctrl-C ends it)", flush=True)
    session.wait(-1)
