"""Stages that share one import: real processes, a DVC that is a loop, and DVC itself."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.repository import BIN

STAGE = """
import json, os, signal, sys, time
from selftrain.plumbing import warm_start
from selftrain.plumbing.processes import begin
if "BEHIND" not in os.environ:  # the shell's `&` ignores both
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
warm_start.LIBRARIES = ("library", "one_that_is_not_there")
begin()
if request := warm_start.start(sys.argv[1:]):
    sys.argv[1:] = request.arguments
    begin()
import library
_, name, what, *values = sys.argv
print(json.dumps({"pid": os.getpid(), "forked": request is not None, "folder": os.getcwd(), "values": values,
                  "stage": os.environ["DVC_STAGE"], "read": sys.stdin.read(),
                  "umask": os.umask(0o22), "nice": os.nice(0), "interrupt ignored": signal.getsignal(signal.SIGINT) == signal.SIG_IGN}), flush=True)
try:
    if what == "wait":
        time.sleep(60)
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "exit":
        sys.exit(int(values[0]))
finally:
    print("cleaned up", flush=True)
"""
LIBRARY = """
import os
with open(os.environ["IMPORTED"], "a") as file:
    file.write(f"{os.getpid()}\\n")
"""
DVC = """
import json, os, subprocess, sys
for line in sys.stdin:
    stage, folder, command, variables = json.loads(line)
    subprocess.Popen(command, shell=True, cwd=folder, env=os.environ | {"DVC_STAGE": stage, "DVC_ROOT": "."} | variables)
"""


class Stages:
    """A process that starts stages as DVC does, in a shell."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.number = folder, 0
        (folder / "stage.py").write_text(STAGE)
        (folder / "library.py").write_text(LIBRARY)
        self.imported = folder / "imported"
        self.imported.touch()
        (folder / "input").write_text("input\n")
        self.environment = {name: value for name, value in os.environ.items() if name != "DVC_STAGE"} | {
            "IMPORTED": str(self.imported)
        }
        self.dvc = subprocess.Popen(
            [sys.executable, "-c", DVC], stdin=subprocess.PIPE, text=True, cwd=folder, env=self.environment
        )

    def start(self, *arguments: str, folder: Path | None = None, **variables: str) -> Path:
        """Start a stage; its output is in the file returned, its process and exit code in two beside it."""
        self.number += 1
        out = self.folder / f"{self.number}.out"
        program = f"{sys.executable} {self.folder}/stage.py {' '.join(arguments)} < {self.folder}/input > {out}"
        self.tell(f"{program} & echo $! > {out}.pid; wait $!; echo $? > {out}.code", folder, **variables)
        return out

    def tell(self, command: str, folder: Path | None = None, **variables: str) -> None:
        """Have a command run as a stage's."""
        assert self.dvc.stdin is not None
        line = json.dumps([f"stage{self.number}", str(folder or self.folder), command, variables])
        self.dvc.stdin.write(line + "\n")
        self.dvc.stdin.flush()

    def run(self, *arguments: str, folder: Path | None = None, **variables: str) -> tuple[dict[str, Any], int]:
        """What a stage printed, and its exit code."""
        out = self.start(*arguments, folder=folder, **variables)
        code = ended(out)
        return said(out), code


def said(out: Path) -> dict[str, Any]:
    """What a stage prints at first."""
    return json.loads(until(lambda: out.exists() and out.read_text().partition("\n")[0]))  # type: ignore[no-any-return]


def ended(out: Path) -> int:
    return int(until(lambda: (code := Path(f"{out}.code")).exists() and code.read_text().strip()))


def until(found: Any) -> Any:
    deadline = time.monotonic() + 60
    while not (value := found()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return value


def state(pid: int) -> str:
    """Linux's letter for it; empty when it has ended."""
    try:
        letter = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if letter == "Z" else letter


@pytest.fixture
def stages(tmp_path: Path) -> Iterator[Stages]:
    stages = Stages(tmp_path)
    yield stages
    stages.dvc.kill()
    stages.dvc.wait()


def test_stages_run_in_forks_of_the_first_that_needs_the_libraries(stages: Stages, tmp_path: Path) -> None:
    light, code = stages.run("select", "exit", "0")
    assert not light["forked"]
    assert code == 0
    first, _ = stages.run("train", "exit", "0")
    assert not first["forked"], "it leaves a copy behind and runs its own command"
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    second, code = stages.run("predict", "exit", "3", "'a b'", folder=elsewhere)
    third, _ = stages.run("select", "exit", "0")
    assert code == 3
    assert second["forked"]
    assert third["forked"]
    assert second["folder"] == str(elsewhere)
    assert second["values"] == ["3", "a b"]
    assert (second["stage"], third["stage"]) == ("stage3", "stage4")
    assert second["read"] == third["read"] == "input\n"
    importing = [int(line) for line in stages.imported.read_text().split()]
    assert importing == [light["pid"], first["pid"]], "forks have it"
    assert len({each["pid"] for each in (light, first, second, third)}) == 4


def test_signals_reach_the_fork_and_its_end_is_the_stages_end(stages: Stages) -> None:
    stages.run("train", "exit", "0")
    for number, code in ((signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGINT, 128 + signal.SIGINT)):
        out = stages.start("train", "wait")
        fork = said(out)["pid"]
        stage = int(Path(f"{out}.pid").read_text())
        assert fork != stage
        os.kill(stage, number)
        assert ended(out) == code
        assert "cleaned up" in out.read_text()
        assert not state(fork)
    out = stages.start("train", "die")
    assert ended(out) == 128 + signal.SIGKILL
    assert "cleaned up" not in out.read_text()


def test_a_stage_that_is_killed_or_stopped_kills_or_stops_its_fork(stages: Stages) -> None:
    stages.run("train", "exit", "0")
    out = stages.start("train", "wait")
    fork, stage = said(out)["pid"], int(Path(f"{out}.pid").read_text())
    os.kill(stage, signal.SIGTSTP)
    until(lambda: state(fork) == "T" and state(stage) == "T")
    os.kill(stage, signal.SIGCONT)
    until(lambda: state(fork) == "S" and state(stage) == "S")
    os.kill(stage, signal.SIGKILL)
    until(lambda: not state(fork))
    assert "cleaned up" not in out.read_text()


def test_everything_ends_with_dvc(stages: Stages, tmp_path: Path) -> None:
    stages.run("train", "exit", "0")
    out = tmp_path / "out"
    stages.tell(f"exec {sys.executable} {tmp_path}/stage.py train wait < input > {out}")  # as DVC's shell does
    fork = said(out)["pid"]
    between = parent_of(fork)
    server = parent_of(between)
    assert parent_of(server) != stages.dvc.pid, "the stage that it is a copy of has ended"
    stages.dvc.kill()
    until(lambda: not any(map(state, (fork, between, server))))
    assert "cleaned up" in out.read_text(), "SIGTERM, as for a stage of its own"


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.parametrize(
    ("before", "what", "value"), [("umask 077;", "umask", 0o77), ("nice -n 3", "nice", 3), ("ulimit -n 99;", "nice", 0)]
)
def test_what_a_stage_inherits_is_its_own(stages: Stages, tmp_path: Path, before: str, what: str, value: int) -> None:
    stages.run("train", "exit", "0")
    outs = [tmp_path / "one", tmp_path / "other"]
    for out in outs:
        program = f"{sys.executable} {tmp_path}/stage.py train exit 0 < input > {out}"
        stages.tell(f"({before} {program}); echo $? > {out}.code")
        assert ended(out) == 0
    one, other = map(said, outs)
    assert (one["forked"], other["forked"]) == (False, True)
    assert one[what] == other[what] == value


def test_an_interrupt_that_the_caller_ignores_stays_ignored(stages: Stages) -> None:
    stages.run("train", "exit", "0", BEHIND="yes")
    out = stages.start("train", "wait", BEHIND="yes")
    fork, stage = said(out), int(Path(f"{out}.pid").read_text())
    assert fork["forked"]
    assert fork["interrupt ignored"]
    os.kill(stage, signal.SIGINT)
    time.sleep(0.5)
    assert state(fork["pid"]) == "S"
    os.kill(stage, signal.SIGTERM)
    assert ended(out) == 128 + signal.SIGTERM


def test_processes_of_torchrun_leave_nothing_behind(stages: Stages) -> None:
    for _ in range(2):
        alone, code = stages.run("train", "exit", "0", RANK="0", WORLD_SIZE="2")
        assert (alone["forked"], code) == (False, 0)


def test_another_environment_and_a_watched_process_have_their_own(stages: Stages) -> None:
    stages.run("train", "exit", "0")
    other, _ = stages.run("train", "exit", "0", OMP_NUM_THREADS="7")
    assert not other["forked"]
    again, _ = stages.run("train", "exit", "0", OMP_NUM_THREADS="7")
    assert again["forked"]
    off, _ = stages.run("train", "exit", "0", SELFTRAIN_WARM_START="no")
    assert not off["forked"]


@pytest.mark.skipif(os.getuid() != 0, reason="takes another user's name for a socket, which root alone can")
def test_a_socket_of_another_user_is_not_trusted(stages: Stages, tmp_path: Path) -> None:
    name = tmp_path / "name"
    ask = "from selftrain.plumbing.warm_start import _address, _dvc; print(_address(_dvc()).hex())"
    # Whoever starts the tests may ignore signals; a stage's are set above, and the name says which.
    heard = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    heard += "signal.signal(signal.SIGQUIT, signal.SIG_DFL); "
    (tmp_path / "ask.py").write_text(f"{heard}sys.argv[0] = {str(tmp_path / 'stage.py')!r}; {ask}")
    stages.tell(f"{sys.executable} ask.py > part; mv part {name}")
    until(name.exists)
    squat = (
        f"import os, socket, time; os.setuid(65534); s = socket.socket(socket.AF_UNIX); "
        f"s.bind(bytes.fromhex({name.read_text().strip()!r})); s.listen(); print('there', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", squat], stdout=subprocess.PIPE, text=True) as squatter:
        assert squatter.stdout is not None
        assert squatter.stdout.readline() == "there\n"
        for _ in range(2):
            stage, code = stages.run("train", "exit", "0")
            assert (stage["forked"], code) == (False, 0)
        squatter.kill()


def test_a_fork_of_the_real_libraries_ends_without_a_word(stages: Stages, tmp_path: Path) -> None:
    program = tmp_path / "stage.py"
    program.write_text("\n".join(line for line in STAGE.splitlines() if "LIBRARIES" not in line))
    for name in ("a", "b"):
        out = tmp_path / name
        stages.tell(f"{sys.executable} {program} train exit 0 < input > {out} 2> {out}.error; echo $? > {out}.code")
        assert ended(out) == 0
        assert said(out)["forked"] == (name == "b")
        assert (tmp_path / f"{name}.error").read_text() == ""


def test_dvc_itself_runs_its_stages_in_forks(tmp_path: Path) -> None:
    stages = Stages(tmp_path)
    stages.dvc.kill()
    stages.dvc.wait()
    for stage in ("a", "b", "c"):
        command = f"{sys.executable} stage.py train exit 0 < /dev/null > {stage}.out"
        made = ["stage", "add", "-n", stage, "-o", f"{stage}.out", *(["-d", "a.out"] if stage != "a" else []), command]
        if stage == "a":
            subprocess.run([BIN / "dvc", "init", "--no-scm", "--quiet"], cwd=tmp_path, check=True)
        subprocess.run([BIN / "dvc", *made], cwd=tmp_path, check=True, capture_output=True)
    subprocess.run([BIN / "dvc", "repro"], cwd=tmp_path, env=stages.environment, check=True, capture_output=True)
    assert [said(tmp_path / f"{stage}.out")["forked"] for stage in ("a", "b", "c")].count(True) == 2
    assert len(stages.imported.read_text().split()) == 1
