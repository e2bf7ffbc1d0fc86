import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from selftrain.plumbing.errors import UserError
from selftrain.training.checkpoint import load_checkpoint, save_checkpoint


def state(step: int) -> dict[str, Any]:
    torch.manual_seed(step)
    network = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return {
        "step": step,
        "none": None,
        "empty": {},
        "best": [0.5, -1.25],
        "half": torch.ones(3, dtype=torch.bfloat16),
        "nothing": torch.empty(0),
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
    }


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    saved = state(1)
    save_checkpoint(tmp_path, 1, saved)
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    assert same({k: v for k, v in saved.items() if k != "network"}, {k: v for k, v in loaded.items() if k != "network"})
    assert same(dict(saved["network"]), loaded["network"])
    assert load_checkpoint(tmp_path / "none") is None


def test_the_newest_counts_and_two_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 10):
        save_checkpoint(tmp_path, step, state(step))
    loaded = load_checkpoint(tmp_path)
    assert loaded is not None
    assert loaded["step"] == 10
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "step-0000000002.safetensors",
        "step-0000000010.safetensors",
    ]


def test_any_flipped_bit_is_noticed_and_the_one_before_is_taken(tmp_path: Path) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, step, state(step))
    newest = tmp_path / "step-0000000002.safetensors"
    whole = newest.read_bytes()
    before, right = load_checkpoint(tmp_path), 0
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        newest.write_bytes(damaged)
        loaded = load_checkpoint(tmp_path)
        assert loaded is not None
        if same(loaded, before):  # such as a blank of the header that became another
            right += 1
        else:
            assert loaded["step"] == 1
    assert right < 3
    newest.write_bytes(whole[:-1])
    (tmp_path / "step-0000000001.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="every checkpoint is damaged"):
        load_checkpoint(tmp_path)


def test_no_kill_leaves_an_unloadable_folder(tmp_path: Path) -> None:
    program = (
        "import torch; from pathlib import Path; from selftrain.training.checkpoint import save_checkpoint\n"
        "step = 0\nwhile True:\n    step += 1\n"
        f"    save_checkpoint(Path({str(tmp_path)!r}), step, {{'step': step, 'w': torch.full((400_000,), step)}})\n"
        "    if step == 1: print('ready', flush=True)\n"
    )
    for kill in range(4):
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        try:
            process.wait(timeout=0.21 + 0.037 * kill)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        loaded = load_checkpoint(tmp_path)
        assert loaded is not None
        assert torch.equal(loaded["w"], torch.full((400_000,), loaded["step"]))
