"""Training on pseudo-labels alone: the first half of "pretrain, then fine-tune".

Yalniz et al. 2019, "Billion-scale semi-supervised learning for image classification", arXiv 1905.00546, train a
student on the teacher's labels first and on the labeled images afterwards; the small-scale replication of
Noisy Student does so too, and the Noisy Student paper's finding #6 is that training on both at once is better.
The second half is a later phase of the run (``train.then``) with the algorithm ``supervised``.

The loss is the mean cross-entropy of the pseudo-labeled batch: 1/(r·B) · Σ w · CE(ỹ, f(x̃)), where w is 1 unless the
selection says otherwise.
"""

from torch import Tensor

from selftrain.learning.algorithm import Algorithm, Batch
from selftrain.learning.losses import PseudoLabelConfig, accuracy, pseudo_label_targets, soft_cross_entropy
from selftrain.learning.runtime import Runtime


class Pretraining(Algorithm):
    """One student on pseudo-labeled images."""

    Config = PseudoLabelConfig
    views = {"unlabeled": ("image", "log_probs", "weight")}

    def loss(self, batch: Batch, step: int, runtime: Runtime) -> dict[str, Tensor]:
        """See the module's docstring."""
        unlabeled = batch["unlabeled"]
        logits = runtime.logits(self.student, unlabeled=unlabeled["image"])["unlabeled"]  # (r·B, C)
        targets = pseudo_label_targets(unlabeled["log_probs"], self.config.labels, self.config.temperature)
        return {
            "loss": (unlabeled["weight"] * soft_cross_entropy(logits, targets)).mean(),
            "agreement_with_teacher": accuracy(logits, targets.argmax(dim=1)),
        }
