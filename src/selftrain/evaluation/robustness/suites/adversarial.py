"""FGSM and PGD at every size ε (Noisy Student, Section 3.4)."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch

from selftrain.evaluation.robustness.adversarial import fgsm, pgd
from selftrain.evaluation.robustness.testbed import Columns, Condition, Testbed, columns_of, stacked
from selftrain.images.clean_images import in_batches

Attack = Callable[..., torch.Tensor]


def conditions(testbed: Testbed) -> Iterator[Condition]:
    """A table an attack."""
    config = testbed.config
    yield Condition("fgsm", config.fgsm, partial(_attacked, testbed, fgsm, config.fgsm))
    in_steps = partial(pgd, steps=config.pgd_steps)
    yield Condition("pgd", (config.pgd, config.pgd_steps), partial(_attacked, testbed, in_steps, config.pgd))


def _attacked(testbed: Testbed, attack: Attack, sizes: tuple[float, ...]) -> Columns:
    found: list[Columns] = []
    subject, test = testbed.subject, testbed.test
    device = subject.hardware.device
    batches = in_batches(np.arange(len(test)), testbed.batch_size)
    for rows, images in zip(batches, testbed.images(batches, None), strict=True):
        inputs = (images.to(device).permute(0, 3, 1, 2).float() / 255).contiguous()
        labels = torch.from_numpy(test.labels[rows].astype(np.int64)).to(device)
        for size in sizes:
            attacked = attack(subject.network, inputs, labels, size / 255)
            with torch.inference_mode():
                log_probs = subject.network(attacked).float().log_softmax(dim=1).cpu()
            found.append(columns_of(test, rows, size, log_probs))
    return stacked(iter(found))
