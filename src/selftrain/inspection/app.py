"""Opening the FiftyOne App on this machine, for this machine."""

import os
import time
from pathlib import Path
from typing import Any

from selftrain.config import parse_section
from selftrain.errors import UserError
from selftrain.inspection.config import BrowseConfig
from selftrain.inspection.rounds import shown_runs
from selftrain.inspection.tables import Pool
from selftrain.stage import WORK

ADDRESS = "127.0.0.1"


def pool_of(params: dict[str, Any], corpus: Path, pipeline: str | None) -> Pool:
    """The tables of a pipeline's pool; None is the main job."""
    runs = shown_runs(params, Path("predictions") / (pipeline or ""), Path("selections") / (pipeline or ""))
    review = Path("review") / (pipeline or "noisy_student")
    return Pool(runs, corpus, review if review.is_dir() else None)


def quiet_fiftyone() -> None:
    """Before FiftyOne is imported: it reports nothing, and does not warn of the age of the database that it brings."""
    os.environ.setdefault("FIFTYONE_DO_NOT_TRACK", "true")
    os.environ.setdefault("FIFTYONE_DATABASE_VALIDATION", "false")


def open_dataset(params: dict[str, Any], params_path: str) -> Any:
    """The dataset of a params file. Raises UserError if it was not built."""
    config = parse_section(params.get("browse"), BrowseConfig, f"{params_path}: browse")
    quiet_fiftyone()
    import fiftyone as fo

    if not fo.dataset_exists(config.dataset):
        raise UserError(f"FiftyOne has no dataset '{config.dataset}'; `selftrain browse --build-only` makes it")
    return fo.load_dataset(config.dataset)


def browse(
    params: dict[str, Any],
    params_path: str,
    corpus: Path,
    pipeline: str | None,
    corrections: Path,
    port: int,
    build_only: bool,
) -> None:
    """Build or update the dataset and, unless ``build_only``, serve the App until it is interrupted.

    ``pipeline`` names the folder under ``predictions`` and ``selections`` of one of ``pipelines/``; None: the main job.
    """
    config = parse_section(params.get("browse"), BrowseConfig, f"{params_path}: browse")
    quiet_fiftyone()
    pool = pool_of(params, corpus, pipeline)
    from selftrain.inspection.plugins import use_plugins

    use_plugins(WORK / "plugins")
    import fiftyone as fo

    from selftrain.inspection.dataset import build_dataset

    dataset = build_dataset(config, pool, WORK / "media" / config.dataset, corrections)
    print(f"FiftyOne dataset '{dataset.name}': {dataset.info['sample']}; {len(dataset.list_saved_views())} saved views")
    if build_only:
        return
    # In a container FiftyOne would bind every address whatever its settings say; the argument binds just this one.
    session = fo.launch_app(dataset, address=ADDRESS, port=port, auto=False)
    _wait_for_server(session)
    print(
        f"FiftyOne App: http://{ADDRESS}:{port}/datasets/{dataset.name}{_first_view(dataset, pool)}  (Ctrl-C ends it)",
        flush=True,
    )
    session.wait(-1)


def _wait_for_server(session: Any) -> None:
    """Until the session has found its server, up to two minutes.

    A session gives up for ten seconds when its server takes ten to start, and coming late it takes every open page
    back to the whole dataset. Raises UserError when the server never answers.
    """
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            session.refresh()
        except (OSError, RuntimeError):  # no server yet; or one, and the session not back
            time.sleep(0.5)
        else:
            time.sleep(1)  # the session looks for its server twice a second
            return
    raise UserError(
        f"the FiftyOne App did not start on port {session.server_port} within two minutes: try again when the machine "
        "is less busy, or with another --port"
    )


def _first_view(dataset: Any, pool: Pool) -> str:
    """The address's end that opens the last round's doubtful labels; empty without a round."""
    from fiftyone.core.utils import to_slug

    names = [f"{run.name}: look here first" for run in pool.runs if run.selection is not None]
    return f"?view={to_slug(names[-1])}" if names and dataset.has_saved_view(names[-1]) else ""
