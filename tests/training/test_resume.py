"""A training that ended early goes on where it was, and does no step again that is saved."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from selftrain.learning.algorithm import Batch
from selftrain.training.batches import Process
from selftrain.training.loop import Loop
from selftrain.training.validation import Score
from tests.algorithms.tiny import new_loop, random_batch


class Batches(torch.utils.data.Dataset[Batch]):
    """Batches that note which steps were asked for, and are gone from a step on."""

    def __init__(self, loop: Loop, gone_from: int | None = None) -> None:
        self.loop, self.gone_from = loop, gone_from
        self.asked: list[int] = []

    def __getitem__(self, step: int) -> Batch:
        self.asked.append(step)
        if step == self.gone_from:
            raise InterruptedError
        return random_batch(self.loop.algorithm, step)


class Validation:
    def score(self, model: torch.nn.Module) -> Score:
        return Score(0.5, -1.0)


class Curves:
    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Nothing."""

    def flush(self) -> None:
        """Nothing."""


def trained(folder: Path, gone_from: int | None = None) -> tuple[list[int], dict[str, Tensor]]:
    """The steps that were asked for, and the weights; a checkpoint after every step."""
    loop = new_loop("noisy_student", plain=True, process=Process(0, 1))
    batches = Batches(loop, gone_from)
    arguments = (batches, Validation(), Curves(), folder, 0.0, "training")
    if gone_from is not None:
        with pytest.raises(InterruptedError):
            loop.run(*arguments)  # type: ignore[arg-type]
    else:
        loop.run(*arguments)  # type: ignore[arg-type]
    return batches.asked, loop.algorithm.state_dict()


def test_no_saved_step_is_done_again(tmp_path: Path) -> None:
    asked, whole = trained(tmp_path / "whole")
    last = asked[-1]
    assert asked == [*range(last + 1)]
    assert last >= 4
    assert trained(tmp_path / "killed", gone_from=3)[0] == [0, 1, 2, 3]
    again, resumed = trained(tmp_path / "killed")
    assert again == [*range(3, last + 1)]
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert trained(tmp_path / "killed")[0] == []
