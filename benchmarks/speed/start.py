"""The main job from nothing, and `dvc repro` with nothing to do, beside DVC's own start.

The main job is `dvc repro` in a fresh clone of this commit. DVC's own start is that command on a pipeline of as many
stages that only copy a file, all of them up to date.
"""

import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from measure import QUICK, Row, Table

ROOT = Path(__file__).parents[2]
DVC = [sys.executable, "-m", "dvc"]


def main() -> None:
    table = Table("start")
    with tempfile.TemporaryDirectory() as scratch:
        stages = 5
        if not QUICK:
            project = Path(scratch) / "project"
            subprocess.run(["git", "clone", "--quiet", str(ROOT), str(project)], check=True)
            cold = Path(scratch) / "cold"
            shutil.copytree(project, cold)
            wall, _, _ = repro(project)
            apart, _, _ = repro(cold, SELFTRAIN_WARM_START="no")
            table.rows.append(Row("the main job", "one in a minute", 3600 / wall, 60, "an hour"))
            table.rows.append(
                Row("the main job", "each stage imports for itself", 3600 / wall, 3600 / apart, "an hour")
            )
            _, ours, said = repro(project)
            stages = len(re.findall("didn't change, skipping", said))
            # DVC reads every dvc.yaml below the root before it does anything. A project of one's own has one.
            shutil.rmtree(project / "pipelines")
            repro(project)
            _, alone, _ = repro(project)
        empty = Path(scratch) / "empty"
        copies(empty, stages)
        repro(empty)
        _, own, said = repro(empty)
        assert len(re.findall("didn't change, skipping", said)) == stages
        if QUICK:
            ours = alone = own
        against, unit = f"DVC's own start, {stages} stages", "a second of processor time"
        table.rows.append(Row("nothing to do, eleven pipelines in the repository", against, 1 / ours, 1 / own, unit))
        table.rows.append(Row("nothing to do, one pipeline", against, 1 / alone, 1 / own, unit))
    table.write()


def repro(project: Path, **variables: str) -> tuple[float, float, str]:
    """`dvc repro`: seconds, seconds of processor time where no stage ran, what it said."""
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"DVC_NO_ANALYTICS": "1", "PYTHONPATH": str(project / "src")} | variables
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # as on the machine of a user, whose Python compiles once
    ended = subprocess.run([*DVC, "repro"], cwd=project, env=environment, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(ended.stdout + ended.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - began, processor, ended.stdout


def copies(project: Path, stages: int) -> None:
    """A pipeline of stages that copy a file, one after the other."""
    project.mkdir()
    subprocess.run(["git", "init", "--quiet"], cwd=project, check=True)
    subprocess.run([*DVC, "init", "--quiet"], cwd=project, check=True)
    (project / "0").write_text("0")
    each = {
        f"copy{number}": {"cmd": f"cp {number} {number + 1}", "deps": [str(number)], "outs": [str(number + 1)]}
        for number in range(stages)
    }
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": each}))


if __name__ == "__main__":
    main()
