"""What a log has of progress, where nobody sees a bar."""

import pytest

from selftrain.plumbing import progress
from selftrain.plumbing.progress import progress_bar


def test_a_log_has_a_line_a_minute(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with progress_bar("train student1", total=12_000, done=2_000) as advance:
        for _ in range(500):
            now += 0.5
            advance(10, loss="0.5")
    assert capsys.readouterr().err.splitlines() == [
        "train student1: 3,200 of 12,000, loss 0.5",
        "train student1: 4,400 of 12,000, loss 0.5",
        "train student1: 5,600 of 12,000, loss 0.5",
        "train student1: 6,800 of 12,000, loss 0.5",
    ]
    with progress_bar("verify labeled") as advance:
        now += 60
        advance()
        advance()
    assert capsys.readouterr().err == "verify labeled: 1\n"
