"""Where the command line starts."""

import sys

from selftrain.cli import results, stages, start, studies  # noqa: F401, they add their commands to the app
from selftrain.cli.app import app
from selftrain.plumbing.errors import UserError


def main() -> None:
    """Run the command line. Errors that the user can mend are one line; ``--debug`` shows where they come from."""
    debug = "--debug" in sys.argv
    sys.argv = [argument for argument in sys.argv if argument != "--debug"]
    try:
        app()
    except (UserError, OSError) as error:
        if debug:
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
