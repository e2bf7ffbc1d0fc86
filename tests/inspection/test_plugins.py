import subprocess
import sys
from pathlib import Path

from selftrain.inspection.plugins import PLUGIN, use_plugins

LIST = """
import sys
from pathlib import Path
from selftrain.inspection.plugins import use_plugins
use_plugins(Path(sys.argv[1]))
use_plugins(Path(sys.argv[1]))  # as a notebook does
import fiftyone.plugins as fop
print(sorted(plugin.name for plugin in fop.list_plugins()))
"""


def test_ours_stands_beside_the_users_own(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    users = tmp_path / "users" / "theirs"
    users.mkdir(parents=True)
    (users / "fiftyone.yml").write_text("name: '@them/theirs'\n")
    monkeypatch.setenv("FIFTYONE_PLUGINS_DIR", str(users.parent))
    for _ in range(2):  # doing it again changes nothing
        listed = subprocess.run(
            [sys.executable, "-c", LIST, str(tmp_path / "links")], capture_output=True, text=True, check=True
        )
        assert "@selftrain/corrections" in listed.stdout
        assert "@them/theirs" in listed.stdout
    assert (users / "fiftyone.yml").is_file()


def test_links_that_lead_nowhere_any_more_go(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("FIFTYONE_PLUGINS_DIR", str(tmp_path / "users"))
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "old").symlink_to(tmp_path / "gone")
    use_plugins(tmp_path / "links")
    assert [path.name for path in (tmp_path / "links").iterdir()] == ["selftrain"]
    assert (tmp_path / "links" / "selftrain").resolve() == PLUGIN.resolve()
