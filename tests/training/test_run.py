"""Where a run's random numbers come from."""

from pathlib import Path

from selftrain.params.train import TrainConfig
from selftrain.plumbing.hardware import HardwareConfig
from selftrain.training.run import Training


def training(name: str, config: TrainConfig, seed: int = 0) -> Training:
    return Training(name, "p", config, HardwareConfig(), seed, Path("corpus"), Path("out"))


def test_runs_draw_by_their_names_unless_they_share_the_seed(tiny: type[TrainConfig]) -> None:
    names = ("teacher", "student1", "student2")
    own = [training(name, tiny()).run_seed for name in names]
    assert len({*own, training("teacher", tiny(), seed=1).run_seed}) == 4
    assert own == [training(name, tiny()).run_seed for name in names], "in every process"
    assert [training(name, tiny(shared_seed=True), seed=7).run_seed for name in names] == [7, 7, 7]
