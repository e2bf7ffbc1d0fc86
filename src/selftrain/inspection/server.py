"""The process that serves the FiftyOne App: FiftyOne's own server behind the guard."""

import argparse
import asyncio
import os
from pathlib import Path

from selftrain.plumbing.processes import begin, end_with_parent

TOKEN = "SELFTRAIN_TOKEN"
"""Of the environment: what lets others in at the public port; a command line can be read by everybody here."""


def main() -> None:
    """Serve until the process that started this one ends."""
    begin()
    end_with_parent()
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--public-port", type=int)
    parser.add_argument("--media", type=Path, required=True)
    options = parser.parse_args()
    os.environ["FIFTYONE_SERVER"] = "1"  # as FiftyOne's own does before it imports FiftyOne
    from fiftyone.server.app import app
    from fiftyone.server.events import set_port
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    from selftrain.inspection.guard import Guard, Public

    config = Config()
    config.loglevel = "WARNING"
    config.bind = [f"127.0.0.1:{options.port}"]
    public = None
    if options.public_port is not None:
        config.bind.append(f"0.0.0.0:{options.public_port}")
        public = Public(options.public_port, os.environ[TOKEN])
    set_port(options.port)
    guarded = Guard(app, options.port, options.media, public)
    asyncio.run(serve(guarded, config))  # type: ignore[arg-type]
    # What FiftyOne does at an exit asks the database, which ended with the parent, for half a minute.
    os._exit(0)


if __name__ == "__main__":
    main()
