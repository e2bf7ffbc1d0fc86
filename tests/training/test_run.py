"""Where a run's random numbers come from, and what it cannot be trained with."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selftrain.learning.algorithm import Needs
from selftrain.params.train import TrainConfig
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.hardware import HardwareConfig, resolve
from selftrain.tables.corpus import classes_of
from selftrain.training.batches import Process
from selftrain.training.phase import make_phase
from selftrain.training.run import Training

MACHINE = HardwareConfig(device="cpu", threads=1, processes=1, workers=0)


def training(name: str, config: TrainConfig, seed: int = 0) -> Training:
    return Training(name, "p", config, HardwareConfig(), seed, Path("corpus"), Path("out"))


def test_runs_draw_by_their_names_unless_they_share_the_seed(tiny: type[TrainConfig]) -> None:
    names = ("teacher", "student1", "student2")
    own = [training(name, tiny()).run_seed for name in names]
    assert len({*own, training("teacher", tiny(), seed=1).run_seed}) == 4
    assert own[0] == 3889406694552014926, "in every process, on every machine"
    assert [training(name, tiny(shared_seed=True), seed=7).run_seed for name in names] == [7, 7, 7]


def test_weights_and_order_come_from_the_runs_own_seed(tiny: type[TrainConfig], digits_corpus: Path) -> None:
    def start(name: str, shared: bool) -> tuple[bytes, list[dict[str, list[int]]]]:
        config = tiny(shared_seed=shared, noise={"flip": 0})
        of_run = replace(training(name, config), corpus=digits_corpus)
        phase = make_phase(of_run, config, 0, None, None, classes_of(digits_corpus), Process(), resolve(MACHINE))
        weights = next(phase.loop.algorithm.student.parameters()).detach().numpy().tobytes()
        return weights, [phase.batches.keys(step) for step in range(2)]

    assert start("teacher", shared=False) == start("teacher", shared=False)
    (weights, order), (others, other_order) = start("teacher", shared=False), start("student1", shared=False)
    assert weights != others
    assert order != other_order
    assert start("teacher", shared=True) == start("student1", shared=True)


@pytest.mark.parametrize(
    ("changes", "machine", "message"),
    [
        ({"batch_size": 6}, {}, "train.batch_size of 'a': 6 does not divide by 4 processes"),
        (
            {"batch_size": 24, "grad_accum_steps": 4},
            {},
            "train.grad_accum_steps of 'a': a process's 6 labeled images a step do not divide by 4",
        ),
        ({"batch_size": 24, "sync_batchnorm": True}, {"compile": True}, "set `hardware.compile` to false"),
        (
            {"batch_size": 24, "activation_checkpointing": True},
            {"compile": True},
            "'a': train.activation_checkpointing",
        ),
        ({"batch_size": 24, "optimizer": "lookahead_AdamP"}, {"fsdp": True}, "'a': train.optimizer: lookahead_AdamP"),
    ],
)
def test_what_does_not_fit_the_processes_is_named(
    tiny: type[TrainConfig], changes: dict[str, Any], machine: dict[str, Any], message: str
) -> None:
    config = tiny(algorithm={"name": "supervised"}, unlabeled_ratio=0, **changes)
    made = replace(training("a", config), hardware=HardwareConfig.model_validate(machine))
    with pytest.raises(UserError, match=message):
        made.check(config, Needs({"labeled": ("image", "label")}), 4)
