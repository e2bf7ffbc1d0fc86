"""The FiftyOne App, served and looked at in a real browser."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1400,900",
    "--virtual-time-budget=20000",
]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, "the App ended by itself"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.5)
    raise TimeoutError


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None and "CI" not in os.environ, reason="needs Debian's chromium; CI installs it")
def test_the_app_shows_a_saved_view_on_this_machine_alone(digits_rounds: Path, tmp_path: Path) -> None:
    port = free_port()
    assert CHROMIUM is not None
    process = subprocess.Popen(
        [sys.executable, "-m", "selftrain", "browse", "--port", str(port)],
        cwd=digits_rounds,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(port, process)
        listening = Path("/proc/net/tcp").read_text()
        assert f"0100007F:{port:04X}" in listening
        assert f"00000000:{port:04X}" not in listening
        url = f"http://127.0.0.1:{port}/datasets/selftrain-test?view=student2-kept"
        command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", url]
        page = ""
        for _ in range(3):  # the App's first page may come before the dataset is loaded
            page = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120).stdout
            if "student2: kept" in page and "student1_decision" in page:
                break
        assert "student2: kept" in page
        assert "student1_decision" in page
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
