"""The FiftyOne App, served and used in a real browser."""

import contextlib
import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from selftrain.tables.corrections import read_corrections
from tests.browser import CHROMIUM, FLAGS, listens
from tests.conftest import free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None and "CI" not in os.environ, reason="needs Debian's chromium; CI installs it"),
]


def server_of(browsing: "subprocess.Popen[str]") -> Any:
    """The process below `selftrain browse` that serves the App, once it is there."""
    import psutil

    while browsing.poll() is None:
        for process in psutil.Process(browsing.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):  # it ended meanwhile
                if process.cmdline()[1:3] == ["-m", "selftrain.inspection.server"]:
                    return process
        time.sleep(0.1)
    assert browsing.stdout is not None
    raise AssertionError("the App ended by itself:\n" + browsing.stdout.read())


def hold_its_server(browsing: "subprocess.Popen[str]") -> None:
    """Stop the App's server for longer than a session waits for one, as happens on a busy machine."""
    server = server_of(browsing)
    server.suspend()
    time.sleep(12)
    server.resume()


@pytest.fixture(scope="module")
def project(digits_rounds: Path) -> Path:
    return digits_rounds


@pytest.fixture(scope="module")
def port(project: Path) -> Iterator[int]:
    """`selftrain browse`, serving; its server starts as late as on a busy machine."""
    port = free_port()
    command = [sys.executable, "-u", "-m", "selftrain", "browse", "--port", str(port)]
    process = subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        hold_its_server(process)
        assert process.stdout is not None
        address = f"FiftyOne App: http://127.0.0.1:{port}/datasets/selftrain-test?view=student2-look-here-first"
        assert any(line.startswith(address) for line in process.stdout), "the App ended by itself"
        yield port
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()


@pytest.fixture(scope="module")
def page(port: int) -> Iterator[Any]:
    """The App in a browser's page."""
    from playwright.sync_api import sync_playwright

    assert CHROMIUM is not None
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1600, "height": 950})
        page.set_default_timeout(60_000)
        advertisement = page.get_by_text("Dismiss", exact=True)
        page.add_locator_handler(advertisement, lambda: advertisement.click())
        yield page
        browser.close()


def view_url(port: int, name: str) -> str:
    from fiftyone.core.utils import to_slug

    return f"http://127.0.0.1:{port}/datasets/selftrain-test?view={to_slug(name)}"


def test_it_listens_on_this_machine_alone(port: int) -> None:
    listening = Path("/proc/net/tcp").read_text()
    assert f"0100007F:{port:04X}" in listening
    assert f"00000000:{port:04X}" not in listening


def test_a_page_of_another_origin_reads_and_changes_nothing(page: Any, port: int, tmp_path: Path) -> None:
    """In a real browser: a page from another port asks for a file, tags a sample by plain text, and frames the App."""
    (tmp_path / "index.html").write_text("<p>attacker</p>")
    serving = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "http.server",
            "--bind",
            "127.0.0.1",
            "--directory",
            str(tmp_path),
            str(free := free_port()),
        ],
        stderr=subprocess.DEVNULL,
    )
    app = f"http://127.0.0.1:{port}"
    answered: list[tuple[str, int]] = []
    attacker = page.context.browser.new_page()
    try:
        while not listens(free):
            time.sleep(0.1)
        attacker.on("response", lambda response: answered.append((response.url, response.status)))
        attacker.goto(f"http://127.0.0.1:{free}/index.html")
        script = """async ([app, method, path, type]) => {
            const options = method == 'GET' ? {} : {body: '{"dataset": "selftrain-test"}', headers: {'Content-Type': type}};
            try { await fetch(app + path, {method, mode: 'no-cors', ...options}) } catch (error) { return String(error) }
            try { return (await (await fetch(app + path, {method, ...options})).text()) } catch (error) { return '' }
        }"""
        for method, path, kind in (
            ("GET", "/media?filepath=/etc/passwd", ""),
            ("GET", "/fiftyone", ""),
            ("POST", "/tagging", "text/plain"),
            ("POST", "/operators/execute", "text/plain"),
            ("POST", "/graphql", "application/json"),
        ):
            assert attacker.evaluate(script, [app, method, path, kind]) == ""
        attacker.evaluate(
            "app => { document.body.innerHTML = `<img src='${app}/fiftyone'><iframe src='${app}/'>` }", app
        )
        attacker.wait_for_timeout(1000)
    finally:
        attacker.close()
        serving.terminate()
    to_app = [status for url, status in answered if url.startswith(app)]
    assert len(to_app) >= 6
    assert set(to_app) == {403}


def test_another_name_of_this_machine_is_refused(port: int) -> None:
    """A rebound name leads here with its own Host."""
    for host, path, expected in (
        ("attacker.example", "/fiftyone", 403),
        (f"127.0.0.1:{port}", "/fiftyone", 200),
        (f"127.0.0.1:{port}", "/media?filepath=/etc/passwd", 403),
    ):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        connection.request("GET", path, headers={"Host": host})
        assert connection.getresponse().status == expected


def test_the_address_it_prints_stays_where_it_is(page: Any, port: int) -> None:
    page.goto(view_url(port, "student2: look here first"))
    page.locator('[data-cy="looker"]').first.wait_for()
    page.wait_for_timeout(12_000)  # a session that found no server comes back after ten seconds
    assert page.url.endswith("?view=student2-look-here-first")


def test_every_saved_view_shows_its_images_with_their_labels(page: Any, port: int) -> None:
    import fiftyone as fo

    dataset = fo.load_dataset("selftrain-test")
    names = dataset.list_saved_views()
    assert len(names) > 20
    page.goto(f"http://127.0.0.1:{port}/datasets/selftrain-test")
    page.get_by_text("samples").first.wait_for()
    # Both rounds' views are made by the same code; what they hold is tested in `test_dataset`.
    for name in [name for name in names if not name.startswith("student1: ")]:
        count = len(dataset.load_saved_view(name))
        page.goto(view_url(port, name))
        page.get_by_text(name, exact=True).first.wait_for()
        if count:
            page.get_by_text(f"{count} sample{'s' if count > 1 else ''}", exact=True).first.wait_for()
            page.locator('[data-cy="looker"]').first.wait_for()
            page.wait_for_function("Array.from(document.querySelectorAll('canvas')).some(c => c.width > 0)")
        else:
            page.wait_for_timeout(1500)
            assert page.locator('[data-cy="looker"]').count() == 0
        if count and "leaks" not in name:
            page.locator('[data-cy="looker"] >> text=/kept|low_confidence|over_quota|^\\d$/').first.wait_for()


def choose_the_first(page: Any, port: int) -> None:
    """Select the first image of a view in the grid."""
    page.goto(view_url(port, "student2: look here first"))
    page.locator('[data-cy="looker"]').first.wait_for()
    page.wait_for_timeout(1500)  # the grid lays itself out once more when it has its images
    box = page.locator('[data-cy="looker"]').first.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_timeout(500)
    checked = page.locator("input[data-cy^=looker-checkbox]:checked")
    if not checked.count():  # the App remembers what an earlier test has selected
        page.mouse.click(box["x"] + 18, box["y"] + 22)
    checked.first.wait_for(state="attached")


def corrected_in_app(dataset: Any, label: str) -> list[int]:
    """The keys of images with a label in ``corrected``, once there are some."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if shown := dataset.load_saved_view("corrections").match({"corrected.label": label}):
            return list(shown.values("key"))
        time.sleep(0.5)
    return []


def test_a_label_is_corrected_in_the_app_and_exported(page: Any, port: int, project: Path) -> None:
    import fiftyone as fo

    dataset = fo.load_dataset("selftrain-test")
    (file := project / "corrections.parquet").unlink(missing_ok=True)
    choose_the_first(page, port)
    page.keyboard.press("`")
    page.keyboard.type("Correct the label")
    page.keyboard.press("Enter")
    page.get_by_text("Label of 1 images").first.wait_for()
    page.get_by_role("combobox").last.click()
    page.get_by_role("option", name="8", exact=True).click()
    page.get_by_role("button", name="Execute").click()
    key = dataset.load_saved_view("student2: look here first").first().key
    assert corrected_in_app(dataset, "8") == [key]
    export = [sys.executable, "-m", "selftrain", "corrections", "export", "--who", "me"]
    told = subprocess.run(export, cwd=project, capture_output=True, text=True, check=True).stdout
    assert "corrections.parquet: 1 corrections, 1 new" in told
    assert read_corrections(file).select("key", "action", "label", "who").rows() == [(key, "correct", "8", "me")]
    file.unlink()


def test_a_digit_key_labels_the_chosen_image(page: Any, port: int) -> None:
    import fiftyone as fo

    dataset = fo.load_dataset("selftrain-test")
    key = dataset.load_saved_view("student2: look here first").first().key
    for pressed, label in (("4", "3"), ("0", "9")):
        choose_the_first(page, port)
        page.keyboard.press(pressed)
        assert corrected_in_app(dataset, label) == [key], pressed
        # The next key is about other images.
        page.locator("input[data-cy^=looker-checkbox]:checked").first.wait_for(state="detached")
    dataset.set_values("corrected", [None] * len(dataset))


def test_the_rounds_panel_counts_the_whole_pool(page: Any, port: int, project: Path) -> None:
    import polars as pl

    page.goto(view_url(port, "student2: kept"))
    page.locator('[data-cy="new-panel-btn"]').first.click()
    page.get_by_text("Rounds", exact=True).first.click()
    page.get_by_text("below, the whole pool").first.wait_for()
    rows = pl.read_parquet(project / "selections" / "noisy_student" / "student2" / "*.parquet")
    kept = len(rows.filter(pl.col("decision") == "kept"))
    assert page.locator("table", has_text=f"{kept:,}").count() >= 1


# The last: a second App on one dataset takes the first one's pages back to the whole of it.
def test_others_come_in_by_the_token_alone(project: Path) -> None:
    public = free_port()
    command = [sys.executable, "-u", "-m", "selftrain", "browse", "--public", "--port", str(public)]
    process = subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout is not None
        warning = next(line for line in process.stdout if "whoever has this address" in line)
        address = urlsplit(warning.rpartition(" ")[2].strip())
        assert address.port == public
        cookie = {"Cookie": f"selftrain_token={parse_qs(address.query)['token'][0]}"}

        def status(path: str, **headers: str) -> tuple[int, dict[str, str]]:
            connection = http.client.HTTPConnection("127.0.0.1", public, timeout=120)
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders())

        others = {"Host": f"machine:{public}"}
        assert status("/fiftyone", **others)[0] == 403
        assert status("/fiftyone", Host=f"127.0.0.1:{public}")[0] == 403, "what calls itself local is not"
        first, headers = status(f"{address.path}?{address.query}", **others)
        assert first == 303
        assert headers["location"].startswith("/datasets/selftrain-test?view=")
        assert "token" not in headers["location"]
        assert status("/fiftyone", **others, **cookie)[0] == 200
    finally:
        server = server_of(process)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
    server.wait(timeout=25)  # FiftyOne alone would wait half a minute for the database
