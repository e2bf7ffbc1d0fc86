"""Our FiftyOne plugin beside the user's own."""

import os
from pathlib import Path

PLUGIN = Path(__file__).parent / "plugin"


def use_plugins(folder: Path) -> None:
    """Make ``folder`` FiftyOne's plugins folder: links to ours and to each that the user has installed.

    FiftyOne looks into one folder; the user's own is left as it is. Called before FiftyOne is imported.
    """
    users = os.environ.get("FIFTYONE_PLUGINS_DIR") or Path.home() / "fiftyone" / "__plugins__"
    if Path(users) == folder.resolve():  # it was done by this process
        return
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        if old.is_symlink():
            old.unlink()
    plugins = [path for path in Path(users).glob("*") if path.is_dir()]
    for name, path in [("selftrain", PLUGIN), *((path.name, path) for path in plugins)]:
        if not (folder / name).exists():
            (folder / name).symlink_to(path.resolve())
    os.environ["FIFTYONE_PLUGINS_DIR"] = str(folder.resolve())
