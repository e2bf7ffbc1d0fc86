"""One import for all stages of a `dvc repro`: libraries take a stage longer than its work where images are few.

The first stage that needs PyTorch imports the libraries, and leaves a copy of itself behind before it does anything
else. DVC's later stages hand their command over to it. It forks, the fork runs the command, and the stage that DVC
started only passes signals on and gives the exit code back. The copy ends with its DVC. It has imported libraries
alone: each fork reads params.yaml and selftrain's own code anew.
"""

import contextlib
import hashlib
import importlib
import json
import os
import signal
import socket
import struct
import sys
from pathlib import Path
from typing import NoReturn

from selftrain.plumbing.warm_server import EXIT_CODE, HEADER, Request, serve

SWITCH = "SELFTRAIN_WARM_START"
"""The variable that turns it off: ``no``."""
LEAVES_BEHIND = ("adopt", "train", "predict", "robustness")
"""Commands that need PyTorch, and so import the libraries anyway."""
LIBRARIES = (
    *("numpy", "pandas", "polars", "pyarrow.parquet", "pyarrow.dataset", "duckdb", "scipy.stats", "sklearn.isotonic"),
    *("torch", "torch.utils.data", "timm", "torchvision", "cv2", "simplejpeg", "PIL.Image"),
    *("mlflow", "mlflow.store.tracking.sqlalchemy_store", "matplotlib.figure", "jinja2"),
    *("pydantic", "ruamel.yaml", "rich.progress", "typer"),
)
"""What stages import. Threads that a fork would miss start with a library's first use. The two exceptions are polars'
cleaner of spilled queries, which no query here needs, and the allocator's, which starts anew in a fork."""
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT)
SAME_FOR_ALL = ("DVC_STAGE", "PWD", "OLDPWD", "SHLVL", "_")
"""Variables that differ from stage to stage and change nothing that a library reads when it is imported."""


def start(arguments: list[str]) -> Request | None:
    """Run a stage's command where the libraries are imported already, if DVC started this process.

    Returns None in a process that is to run its own command, and the request in a fork that is to run another's. Never
    returns where a copy runs the command: the process ends as the fork ended.
    """
    dvc = _dvc() if _wanted(arguments) else None
    if dvc is None:
        return None
    with socket.socket(socket.AF_UNIX) as there:
        address = _address(dvc)
        try:
            there.connect(address)
        except ConnectionRefusedError:
            return _leave_behind(address, dvc) if arguments[0] in LEAVES_BEHIND else None
        if _user_of(there) == os.getuid():
            _hand_over(there, arguments)
    return None


def _wanted(arguments: list[str]) -> bool:
    watched = sys.gettrace() or sys.getprofile()  # by a debugger, a profiler or a measure of coverage
    # Each of torchrun's processes has variables of its own, so that no later stage could use what it leaves behind.
    of_a_stage = "DVC_STAGE" in os.environ and "RANK" not in os.environ
    asked = sys.platform.startswith("linux") and of_a_stage and os.environ.get(SWITCH) != "no"
    return bool(arguments) and asked and not watched


def _dvc() -> int | None:
    """The process that runs the stage: the nearest ancestor that is not of the stage itself, as its shell is."""
    stage = f"DVC_STAGE={os.environ['DVC_STAGE']}".encode()
    pid = os.getppid()
    while pid > 1:
        try:
            if stage not in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                return pid
            pid = int(_fields(pid)[1])
        except OSError:
            return None
    return None


def _fields(pid: int) -> list[str]:
    """What Linux knows of a process, from its state on; its name before may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()


def _address(dvc: int) -> bytes:
    """A name in Linux's own space of sockets: no file stays behind.

    There is one for each DVC, interpreter, environment, and for all else that a process inherits.
    """
    environment = sorted((name, value) for name, value in os.environ.items() if name not in SAME_FOR_ALL)
    began = _fields(dvc)[19]
    what = json.dumps([os.getuid(), dvc, began, sys.executable, sys.argv[0], environment, _inherited()])
    return b"\0selftrain-" + hashlib.sha256(what.encode()).hexdigest()[:32].encode()


def _inherited() -> list[str]:
    """What a process has from its parent beside its environment: a copy of another one has that one's."""
    status = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace").splitlines()
    asked = [line for line in status if line.startswith(("Umask:", "SigIgn:", "Cpus_allowed_list:"))]
    limits = Path("/proc/self/limits").read_text(encoding="utf-8", errors="replace")
    return [*asked, limits, str(os.getpriority(os.PRIO_PROCESS, 0))]


def _user_of(connection: socket.socket) -> int:
    """Whose process is at the other end: such a name may be taken by anybody."""
    _, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(user)


def _leave_behind(address: bytes, dvc: int) -> Request | None:
    """Import the libraries, and leave a copy of this process behind that serves. Returns as ``start``."""
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            listener.bind(address)
            watched = os.pidfd_open(dvc)
        except OSError:  # another stage was quicker, or DVC is gone
            return None
        listener.listen()
        for library in LIBRARIES:
            # A stage that needs it says what is missing.
            with contextlib.suppress(ImportError):
                importlib.import_module(library)
        if os.fork() == 0:
            return serve(listener, watched)
        os.close(watched)
    return None


def _hand_over(there: socket.socket, arguments: list[str]) -> NoReturn:
    """Have the copy run the command; pass signals on; end as it ended."""
    request = json.dumps(Request(arguments, str(Path.cwd()), dict(os.environ))).encode()
    socket.send_fds(there, [HEADER.pack(len(request))], [0, 1, 2])
    there.sendall(request)

    def forward(number: int, frame: object) -> None:
        with contextlib.suppress(OSError):  # it has ended
            there.send(bytes([number]))

    def stop(number: int, frame: object) -> None:
        forward(signal.SIGSTOP, frame)
        os.kill(os.getpid(), signal.SIGSTOP)

    for number in FORWARDED:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, forward)
    signal.signal(signal.SIGTSTP, stop)
    answer = there.recv(EXIT_CODE.size, socket.MSG_WAITALL)
    if len(answer) < EXIT_CODE.size:
        print("error: the process that waited for this stage's command was killed", file=sys.stderr)
        raise SystemExit(1)
    (code,) = EXIT_CODE.unpack(answer)
    if code >= 0:
        raise SystemExit(code)
    if -code != signal.SIGKILL:
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
    raise SystemExit(128 - code)
