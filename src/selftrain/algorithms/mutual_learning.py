"""Deep Mutual Learning: Zhang, Xiang, Hospedales and Lu, CVPR 2018, arXiv 1706.00384.

K peers start from nothing and teach one another; peer k descends

    CE(y, p_k) + 1/(K − 1) · Σ_{l ≠ k} KL(p_l ‖ p_k)

with p_l as it is (Section 2.2 and 2.4). Unlabeled images have the second term alone (Section 2.5's remark on
semi-supervised learning). The paper lets one peer step after the other, each on the others' new predictions; here all
step at once from the predictions before, as most implementations do: one pass a peer instead of two.

The student is the first peer, and the result; ``train.networks.peer2`` sets up the second, and so on.
"""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from selftrain.learning.algorithm import Algorithm, Batch, Needs, Networks, Views
from selftrain.learning.losses import accuracy, distillation_loss, full_precision, masked_cross_entropy
from selftrain.learning.runtime import Runtime
from selftrain.plumbing.sections import Section


class MutualLearningConfig(Section):
    """``train.algorithm`` of mutual learning."""

    peers: int = Field(default=2, ge=2)
    """K, the student among them."""
    factor: float = Field(default=1.0, ge=0)
    """Of what the peers say; 1 in the paper."""
    temperature: float = Field(default=1.0, gt=0)
    """Of the peers' predictions; 1 in the paper. Its square keeps their weight, as in distillation."""
    learn_on: Literal["labeled", "both"] = "both"
    """Where peers listen to one another: on labeled images, as in the paper's experiments, or on unlabeled ones too."""


def peer_names(config: MutualLearningConfig) -> tuple[str, ...]:
    """Those of the peers beside the student."""
    return tuple(f"peer{number}" for number in range(2, config.peers + 1))


def mutual_loss(logits: list[Tensor], temperature: float) -> list[Tensor]:
    """Each peer's mean divergence from the others, averaged over them: K logits (B, C) → K scalars.

    A peer's own gets gradients; what the others say is taken as it is.
    """
    predictions = [full_precision(network_logits.detach()).log_softmax(dim=1) for network_logits in logits]
    return [
        torch.stack(
            [
                distillation_loss(network_logits, other, temperature)
                for place, other in enumerate(predictions)
                if place != number
            ]
        ).mean()
        for number, network_logits in enumerate(logits)
    ]


class MutualLearning(Algorithm):
    """K networks of any architecture, each the others' teacher."""

    Config = MutualLearningConfig

    @classmethod
    def needs(cls, config: MutualLearningConfig) -> Needs:
        """The peers."""
        views: Views = {"labeled": ("image", "label")}
        if config.learn_on == "both":
            views["unlabeled"] = ("image", "label")
        return Needs(views, peer_names(config))

    def __init__(self, student: nn.Module, config: Any, networks: Networks) -> None:
        super().__init__(student, config, networks)
        self.names = ("student", *peer_names(config))
        for name in self.names[1:]:
            self.add_module(name, networks.new(name))

    def trained_networks(self) -> dict[str, nn.Module]:
        """All of them."""
        return {name: getattr(self, name) for name in self.names}

    def validated_networks(self) -> dict[str, nn.Module]:
        """The other peers."""
        return {name: getattr(self, name) for name in self.names[1:]}

    def loss(self, batch: Batch, step: int, runtime: Runtime) -> dict[str, Tensor]:
        """The sum of the peers' losses: none has a gradient in another's."""
        images = {source: views["image"] for source, views in batch.items()}
        logits = {name: runtime.logits(getattr(self, name), **images) for name in self.names}
        mutual = mutual_loss(
            [torch.cat([*by_source.values()]) for by_source in logits.values()], self.config.temperature
        )
        losses: dict[str, Tensor] = {}
        total = torch.zeros((), device=mutual[0].device)
        for (name, by_source), listening in zip(logits.items(), mutual, strict=True):
            labeled = self._labeled_loss(by_source, batch)
            total = total + labeled + self.config.factor * listening
            prefix = "" if name == "student" else f"{name}_"
            losses[f"{prefix}labeled_loss"] = labeled
            losses[f"{prefix}mutual_loss"] = listening
            losses[f"{prefix}labeled_accuracy"] = accuracy(by_source["labeled"], batch["labeled"]["label"])
        return {"loss": total} | losses

    def _labeled_loss(self, logits: dict[str, Tensor], batch: Batch) -> Tensor:
        """Cross-entropy of labeled images, and of those in the pool that a person labeled."""
        loss = functional.cross_entropy(full_precision(logits["labeled"]), batch["labeled"]["label"])
        if "unlabeled" not in batch:
            return loss
        known = batch["unlabeled"]["label"]
        return loss + masked_cross_entropy(logits["unlabeled"], known.clamp(min=0), known >= 0)
