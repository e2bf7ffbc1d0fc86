"""The process that serves the FiftyOne App: FiftyOne's own server behind the guard."""

import argparse
import asyncio
import os
from pathlib import Path

from selftrain.plumbing.processes import begin, end_with_parent

TOKEN = "SELFTRAIN_TOKEN"
"""Of the environment: what lets others in; a command line can be read by everybody on the machine."""


def main() -> None:
    """Serve until the process that started this one ends."""
    begin()
    end_with_parent()
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--media", type=Path, required=True)
    options = parser.parse_args()
    os.environ["FIFTYONE_SERVER"] = "1"  # as FiftyOne's own does before it imports FiftyOne
    from fiftyone.server.app import app
    from fiftyone.server.events import set_port
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    from selftrain.inspection.guard import Guard

    config = Config()
    config.loglevel = "WARNING"
    config.bind = [f"{options.address}:{options.port}"]
    set_port(options.port)
    guarded = Guard(app, options.port, options.media, os.environ.get(TOKEN))
    asyncio.run(serve(guarded, config))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
