"""Where the command line starts."""

import sys

from selftrain.plumbing import warm_start
from selftrain.plumbing.processes import begin, death_of_worker, mark_failure


def main() -> None:
    """Run the command line. Errors that the user can mend are one line; ``--debug`` shows where they come from."""
    begin()
    if request := warm_start.start(sys.argv[1:]):
        sys.argv[1:] = request.arguments
        begin()
    from selftrain.cli import results, stages, start, studies, workspace  # noqa: F401, they add their commands to the app
    from selftrain.cli.app import app
    from selftrain.plumbing.errors import UserError

    debug = "--debug" in sys.argv
    sys.argv = [argument for argument in sys.argv if argument != "--debug"]
    try:
        app()
    except (UserError, OSError, RuntimeError) as error:
        known = death_of_worker(error) if isinstance(error, RuntimeError) else str(error)
        if debug or known is None:
            raise
        print(f"error: {' '.join(known.split())}", file=sys.stderr)
        mark_failure()
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
