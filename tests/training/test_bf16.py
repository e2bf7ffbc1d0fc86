"""Training in bf16 against training in float32."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from selftrain.algorithms.supervised import Supervised, SupervisedConfig
from selftrain.images.index import load_index
from selftrain.networks.models import create_model
from selftrain.plumbing.hardware import Hardware
from selftrain.training.batches import Process, TrainingBatches
from selftrain.training.loop import Loop
from tests.algorithms.given import GivenNetworks

STEPS, WINDOW = 120, 20


def curve(corpus: Path, config: Any, bf16: bool, seed: int = 0) -> np.ndarray:
    """The loss of each step, its mean over windows."""
    torch.manual_seed(seed)
    student = create_model("test_resnet", 10, 32)
    algorithm = Supervised(student, SupervisedConfig(), GivenNetworks(lambda _: torch.nn.Module()))
    hardware = Hardware(torch.device("cpu"), bf16=bf16, workers=0, threads=1)
    loop = Loop(algorithm, config, 1.0, seed, hardware, Process())
    batches = TrainingBatches(config, Supervised.views, seed, Process(), load_index(corpus / "labeled"), None)
    algorithm.train()
    losses = [loop.one_step(batches[step])["loss"].item() for step in range(STEPS)]
    return np.reshape(losses, (-1, WINDOW)).mean(axis=1)


def test_losses_fall_as_in_float32(digits_corpus: Path, tiny: Any) -> None:
    noise = {"flip": 0, "randaugment_policy": "svhn", "randaugment_magnitude": 5}
    config = tiny(steps=STEPS, batch_size=32, learning_rate=0.002, noise=noise)
    single, half, other_seed = (curve(digits_corpus, config, *how) for how in ((False,), (True,), (False, 1)))
    assert single[-1] < 0.5 * single[0], "something is learned"
    differ = np.abs(half - single)
    assert (differ < 0.03 * single[0]).all(), "and along the same curve"
    assert differ.mean() < 0.5 * np.abs(other_seed - single).mean(), "closer than another seed's"
