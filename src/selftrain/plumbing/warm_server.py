"""What ``warm_start`` leaves behind: a process that forks for each command, and ends with its DVC."""

import gc
import json
import os
import select
import signal
import socket
import struct
from typing import NamedTuple

HEADER = struct.Struct("!I")
"""The length of a request, in bytes; the standard streams come with it."""
EXIT_CODE = struct.Struct("!i")
"""The answer to a request; negative: the signal that ended it."""
HELD_BACK = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
"""A scheduler sends them to all processes of a job. Those that only wait have nothing to save."""
SECONDS_TO_ASK = 10


class Request(NamedTuple):
    """A command that a stage asks for."""

    arguments: list[str]
    folder: str
    environment: dict[str, str]


def serve(listener: socket.socket, dvc: int) -> Request:
    """Fork for each command, until ``dvc``, a pidfd, has ended. Returns in the forks alone, each with its request."""
    os.setsid()
    signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with open(os.devnull, "r+b", buffering=0) as nothing:
        _become_streams([nothing.fileno()] * 3)
    gc.collect()
    gc.freeze()  # pages that no collection writes to stay shared
    while True:
        ready, _, _ = select.select([listener.fileno(), dvc], [], [])
        if dvc in ready:
            os._exit(0)
        stage, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            os.close(dvc)
            return _attend(stage)
        stage.close()


def _attend(stage: socket.socket) -> Request:
    """Fork once more, for the command: pass the stage's signals on to it, and its exit code back."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    request, streams = _received(stage)
    command = os.fork()
    if command == 0:
        stage.close()
        gc.unfreeze()  # or libraries that count their objects tell at the end of those that were not freed
        _become_streams(streams)
        for stream in streams:
            os.close(stream)
        os.chdir(request.folder)
        os.environ.clear()
        os.environ.update(request.environment)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_BACK)
        return request
    ended = os.pidfd_open(command)
    while True:
        ready, _, _ = select.select([stage.fileno(), ended], [], [])
        if ended in ready:
            code = os.waitstatus_to_exitcode(os.waitpid(command, 0)[1])
            stage.sendall(EXIT_CODE.pack(code))
            os._exit(0)
        # A stage that was killed says no more; its command ends as it would have.
        for number in stage.recv(64) or bytes([signal.SIGKILL]):
            signal.pidfd_send_signal(ended, number)


def _received(stage: socket.socket) -> tuple[Request, list[int]]:
    """A request and the stage's standard streams. Ends this process if the stage died before it had asked."""
    stage.settimeout(SECONDS_TO_ASK)
    try:
        header, streams, _, _ = socket.recv_fds(stage, HEADER.size, 3)
        (length,) = HEADER.unpack(header)
        with stage.makefile("rb") as sent:
            request = Request(*json.loads(sent.read(length)))
    except (OSError, ValueError, struct.error):
        os._exit(1)
    stage.settimeout(None)
    return request, streams


def _become_streams(descriptors: list[int]) -> None:
    for stream, descriptor in enumerate(descriptors):
        os.dup2(descriptor, stream)
