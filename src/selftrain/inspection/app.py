"""Opening the FiftyOne App on this machine, for this machine."""

import atexit
import importlib.util
import os
import secrets
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from selftrain.inspection.guard import Public
from selftrain.inspection.rounds import browsed_runs
from selftrain.inspection.server import TOKEN
from selftrain.inspection.tables import Pool
from selftrain.params.browse import BrowseConfig
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.locks import WORK
from selftrain.plumbing.sections import did_you_mean
from selftrain.project import Project

ADDRESS = "127.0.0.1"
_served: dict[int, tuple[Path, "subprocess.Popen[bytes]"]] = {}
"""The servers of this process, by port, with their media folders."""
STARTING = 120
"""Seconds that a busy machine may take to start the App's server."""


def pool_of(project: Project) -> Pool:
    """The tables of a pipeline's pool."""
    review = project.review if project.review.is_dir() else None
    return Pool(browsed_runs(project), project.corpus, review, project.asked if project.asked.is_file() else None)


def quiet_fiftyone() -> None:
    """Before FiftyOne is imported: it reports nothing to anybody, and tells of errors alone.

    It would warn of the age of the database that it brings, and of options that it sets itself.

    Raises UserError if it is not installed.
    """
    if importlib.util.find_spec("fiftyone") is None:
        raise UserError("FiftyOne is not installed; `pip install 'selftrain[browse]'`")
    os.environ.setdefault("FIFTYONE_DO_NOT_TRACK", "true")
    os.environ.setdefault("FIFTYONE_DATABASE_VALIDATION", "false")
    os.environ.setdefault("FIFTYONE_LOGGING_LEVEL", "ERROR")


def open_dataset(project: Project) -> Any:
    """The dataset of a pipeline. Raises UserError if it was not built."""
    config = project.section("browse", BrowseConfig)
    quiet_fiftyone()
    import fiftyone as fo

    from selftrain.inspection.samples import check_owner

    dataset = fo.load_dataset(config.dataset) if fo.dataset_exists(config.dataset) else None
    if dataset is not None:
        check_owner(dataset, project.root)
    if dataset is None or "classes" not in dataset.info:  # it is the last that a build writes
        raise UserError(
            f"FiftyOne has no dataset '{config.dataset}', or half of it; "
            f"`selftrain browse --build-only --pipeline {project.name}` makes it"
        )
    return dataset


def browse(project: Project, port: int, build_only: bool, public: bool = False) -> None:
    """Build or update the dataset and, unless ``build_only``, serve the App until it is interrupted.

    ``public``: to other machines too, with a token.
    """
    dataset, pool = build(project)
    print(f"FiftyOne dataset '{dataset.name}': {dataset.info['sample']}; {len(dataset.list_saved_views())} saved views")
    if build_only:
        return
    names = [f"{run.name}: look here first" for run in pool.runs if run.selection is not None]
    others = Public(port, secrets.token_urlsafe(24)) if public else None
    session, address = _open(dataset, _free_port() if public else port, names[-1] if names else None, others)
    if others is not None:
        print(
            "warning: whoever has this address can see and change every FiftyOne dataset of this account, and see the "
            f"names of its files; unencrypted: {_for_others(address, others)}"
        )
    print(f"FiftyOne App: {address}  (Ctrl-C ends it)", flush=True)
    session.wait(-1)


def open_session(project: Project, port: int, view: str | None) -> Any:
    """Build or update the dataset and open the App on a saved view; returns FiftyOne's session.

    Raises UserError naming the saved views that there are, if this is none.
    """
    dataset, _ = build(project)
    if view is not None and not dataset.has_saved_view(view):
        raise UserError(f"there is no saved view '{view}'; {did_you_mean(view, dataset.list_saved_views())}")
    session, address = _open(dataset, port, view)
    print(f"FiftyOne App: {address}", flush=True)
    return session


def build(project: Project) -> tuple[Any, Pool]:
    """The dataset, brought up to date, and the pool that it shows."""
    config = project.section("browse", BrowseConfig)
    quiet_fiftyone()
    pool = pool_of(project)
    from selftrain.inspection.plugins import use_plugins

    use_plugins(WORK / "plugins")
    from selftrain.inspection.dataset import build_dataset

    return build_dataset(config, pool, WORK / "media" / config.dataset, project.corrections), pool


def _open(dataset: Any, port: int, view: str | None, public: Public | None = None) -> tuple[Any, str]:
    """A session that has its server, and the address that opens a saved view."""
    import fiftyone as fo
    from fiftyone.core.utils import to_slug

    _serve(port, WORK / "media" / dataset.name, public)
    # FiftyOne finds our server at the port, and starts none of its own.
    session = fo.launch_app(dataset, address=ADDRESS, port=port, auto=False)
    _wait_for_server(session)
    query = f"?view={to_slug(view)}" if view is not None and dataset.has_saved_view(view) else ""
    return session, f"http://{ADDRESS}:{port}/datasets/{dataset.name}{query}"


def _serve(port: int, media: Path, public: Public | None) -> None:
    """Start the guarded server, and wait until it listens. Raises UserError if it does not, or if something else does.

    It ends with this process. A notebook that opens the App once more has the server that it has already.
    """
    media_before, before = _served.get(port, (None, None))
    if before is not None and before.poll() is None:
        if media_before == media:
            return
        before.terminate()
        before.wait()
    for each in (port, *(() if public is None else (public.port,))):
        if _listens(each):
            raise UserError(f"port {each}: something listens there already, another App perhaps; take another --port")
    command = ["-m", "selftrain.inspection.server", "--port", str(port), "--media", str(media)]
    environment = dict(os.environ)
    if public is not None:
        command += ["--public-port", str(public.port)]
        environment[TOKEN] = public.token
    server = subprocess.Popen([sys.executable, *command], env=environment)
    atexit.register(server.terminate)
    _served[port] = (media, server)
    deadline = time.monotonic() + STARTING
    while not _listens(port):
        if server.poll() is not None or time.monotonic() > deadline:
            server.kill()
            raise UserError(f"the FiftyOne App's server did not start on port {port}; what it printed says why")
        time.sleep(0.1)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((ADDRESS, port)) == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        return int(probe.getsockname()[1])


def _for_others(address: str, public: Public) -> str:
    parts = urlsplit(address)
    query = "&".join([*filter(None, [parts.query]), f"token={public.token}"])
    return parts._replace(netloc=f"{socket.gethostname()}:{public.port}", query=query).geturl()


def _wait_for_server(session: Any) -> None:
    """Until the session has found its server, up to two minutes.

    A session gives up for ten seconds when its server takes ten to start, and coming late it takes every open page
    back to the whole dataset. Raises UserError when the server never answers.
    """
    deadline = time.monotonic() + STARTING
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
