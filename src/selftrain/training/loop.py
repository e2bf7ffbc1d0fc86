"""The training loop. It knows no algorithm by name."""

import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from selftrain.counters import Stream, mixed_int, word
from selftrain.images.workers import in_order
from selftrain.learning.algorithm import Algorithm, Batch, images_in
from selftrain.learning.runtime import Runtime, plain_gradient
from selftrain.networks.activation_checkpointing import checkpoint_activations
from selftrain.networks.compiling import compile_for_training
from selftrain.networks.freezing import freeze_shallow, train_mode
from selftrain.networks.model_noise import ModelNoise
from selftrain.networks.sync_batch_norm import synchronize_batch_norm
from selftrain.params.train import TrainConfig
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.files import write_json
from selftrain.plumbing.hardware import Hardware, peak_memory
from selftrain.plumbing.processes import TERMINATED, stoppable
from selftrain.plumbing.progress import progress_bar
from selftrain.training.batches import Process, TrainingBatches
from selftrain.training.checkpoint import load_checkpoint, save_checkpoint
from selftrain.training.distributed import gathered, means, share_buffers
from selftrain.training.gradient_buckets import averaged_gradient
from selftrain.training.on_device import on_device
from selftrain.training.optimization import Descent
from selftrain.training.sharding import WholeNetworks, load_whole, load_whole_optimizer, shard, sharded_gradient, whole
from selftrain.training.validation import Score, Validation
from selftrain.training.weights_average import WeightsAverage
from selftrain.training.window import Window

LOG_EVERY, AGREE_EVERY = 10, 5
"""Steps between points of the curves; steps between the moments at which several processes may stop or save."""


class Curves(Protocol):
    """Where the loop reports its curves."""

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Take the values of a step."""

    def flush(self) -> None:
        """Store what was taken; called right before a checkpoint, so that no point is stored twice."""


class Loop:
    """One training: its state, and how to go on from any step of it."""

    def __init__(
        self,
        algorithm: Algorithm,
        config: TrainConfig,
        steps_per_epoch: float,
        seed: int,
        hardware: Hardware,
        process: Process,
    ) -> None:
        total_steps = 0 if algorithm.closed_form else config.total_steps(steps_per_epoch)
        for name, network in algorithm.trained_networks().items():
            freeze_shallow(network, config.of_network(name).frozen)
            if config.sync_batchnorm:
                synchronize_batch_norm(network)
        self.sharded = hardware.fsdp and process.world_size > 1 and total_steps > 0
        # What `to_input` gives is channels-last in memory already; convolutions are faster for it. FSDP2 cannot cut it.
        layout = torch.contiguous_format if self.sharded else torch.channels_last
        algorithm.to(hardware.device).to(memory_format=layout)
        self.algorithm = algorithm
        classifiers = {"student": algorithm.student, **algorithm.validated_networks()}
        noises = {name: ModelNoise(network, config.of_network(name).noise) for name, network in classifiers.items()}
        self.ema = WeightsAverage(algorithm.student, config) if config.ema_decay else None
        if config.activation_checkpointing:
            for name, network in classifiers.items():
                checkpoint_activations(network, noises[name], config.of_network(name).model)
        if self.sharded:
            self._wholes = WholeNetworks(classifiers.values())
            for network in (*classifiers.values(), *([] if self.ema is None else [self.ema.module])):
                shard(network)
        lengths = (total_steps, steps_per_epoch)
        rests = {name: mixed_int(seed, Stream.LAYER_FREEZING, word(name)) for name in algorithm.trained_networks()}
        first = {name: algorithm.first_step(name) for name in rests}
        made = algorithm.needs(algorithm.config).layers
        self.descents = {
            name: Descent(network, config.of_network(name, name in made), *lengths, first[name], rests[name])
            for name, network in algorithm.trained_networks().items()
        }
        if hardware.compile:
            compile_for_training(classifiers.values())
        gradient, own_gradient = (sharded_gradient,) * 2 if self.sharded else (averaged_gradient, plain_gradient)
        self.runtime = Runtime(
            minimizers=self.descents,
            gradient=gradient,
            own_gradient=own_gradient,
            grad_accum_steps=config.grad_accum_steps,
            autocast=hardware.autocast,
            noised_rows={network: noises[name].noised_rows for name, network in classifiers.items()},
            averaged_student=self._averaged_logits if self.ema is not None else None,
            means=means,
            share_buffers=share_buffers,
        )
        self.config, self.total_steps, self.seed = config, total_steps, seed
        self.hardware, self.process = hardware, process
        self.step, self.skipped, self.seconds = 0, 0, 0.0
        self.best_step = 0
        self.best_score: Score | None = None
        self.best_weights: dict[str, Tensor] = {}

    def run(
        self,
        batches: TrainingBatches,
        validation: Validation,
        curves: Curves,
        checkpoints: Path,
        checkpoint_seconds: float,
        title: str,
    ) -> None:
        """Train from the newest checkpoint, or the start, to the end. The best weights are then in ``best_weights``."""
        state = load_checkpoint(checkpoints)
        if state is not None:
            self.load_state(state)
        if self.total_steps == 0 and self.best_score is None:
            curves.log(0, self._validate(validation))
            curves.flush()
            self._save(checkpoints)
        if self.ended():
            return
        saved_at = time.monotonic()
        window = Window()
        pin = self.hardware.device.type == "cuda"
        steps = range(self.step, self.total_steps)
        train_mode(self.algorithm)
        with progress_bar(title, self.total_steps, self.step) as advance, stoppable() as stop:
            for batch in in_order(batches, steps, self.hardware.workers, pin):
                window.add(self.one_step(batch), images_in(batch) * self.process.world_size, self._finite())
                stopping, due = self._agreed(stop.requested, time.monotonic() - saved_at > checkpoint_seconds)
                at_validation = self.step % self.config.validate_every == 0 or self.step == self.total_steps
                if at_validation or due or stopping or self.step % LOG_EVERY == 0:
                    # Whatever is saved, validated or drawn is finite.
                    self._look_for_nonfinite(window, batches, checkpoints, title)
                if at_validation:
                    paused = time.monotonic()
                    curves.log(self.step, self._validate(validation))
                    window.leave_out(time.monotonic() - paused)
                if self.step % LOG_EVERY == 0 or self.ended():
                    self.seconds += window.seconds
                    figures = window.means() | {"peak_memory_mib": peak_memory(self.hardware.device) / 2**20}
                    if self.config.skip_nonfinite:
                        figures["skipped_steps"] = self.skipped
                    figures |= {f"{name}_learning_rate": d.learning_rate for name, d in self.descents.items()}
                    curves.log(self.step, figures)
                    # There is no loss where all steps of the window were skipped.
                    advance(window.steps, loss=f"{figures.get('loss', math.nan):.3f}")
                    window = Window()
                if due or stopping or self.ended():
                    curves.flush()
                    self._save(checkpoints)
                    saved_at = time.monotonic()
                if stopping:
                    raise SystemExit(TERMINATED)
                if self.ended():
                    return

    def _agreed(self, stopping: bool, due: bool) -> tuple[bool, bool]:
        """Whether to stop after this step, and whether to save: several processes do so after the same one.

        Any of them may ask for the stop. The first one's clock says when a checkpoint is due.
        """
        if self.process.world_size == 1:
            return stopping, due
        if self.step % AGREE_EVERY:
            return False, False
        asked = gathered((stopping, due))
        return any(stops for stops, _ in asked), asked[0][1]

    def _finite(self) -> Tensor:
        """Whether all gradients of the last step were finite; on the device."""
        flags = [flag for descent in self.descents.values() for flag in descent.finite]
        return torch.stack(flags).all()

    def _look_for_nonfinite(self, window: Window, batches: TrainingBatches, checkpoints: Path, title: str) -> None:
        """Count the steps since the last look that were not finite. Raises UserError at the first one too many."""
        places = window.take_nonfinite()
        self.skipped += len(places)
        if self.skipped > self.config.skip_nonfinite:
            step = self.step - window.steps + places[self.config.skip_nonfinite - self.skipped]
            found = checkpoints / "nonfinite.json"
            if self.process.rank == 0:
                write_json(found, {"step": step + 1, "keys": batches.keys(step)})
            raise UserError(
                f"{title}: the loss or the gradient of step {step + 1:,} is not finite, so nothing after it can be "
                f"learned; lower `train.learning_rate` ({self.config.learning_rate:g}) or set `train.clip_grad`. The "
                f"step's images are in {found}; the checkpoint before it stays"
            )

    def ended(self) -> bool:
        """Whether every step is taken, or the best validation is ``patience`` validations ago."""
        patience = self.config.patience
        waiting_since = max(self.best_step, self.algorithm.first_step("student"))
        lost_patience = patience is not None and self.step - waiting_since >= patience * self.config.validate_every
        return self.step >= self.total_steps or (lost_patience and self.best_score is not None)

    def evaluated_model(self) -> nn.Module:
        """What is validated and exported: the weights' moving average if there is one, or else the student.

        Where processes share out the weights, it is a whole copy, and all of them have to call it.
        """
        averaged = None if self.ema is None else self.ema.module
        if self.sharded:
            return self._wholes.of(self.algorithm.student, averaged)
        return self.algorithm.student if averaged is None else averaged

    def checkpoint_bytes(self) -> int:
        """The most that a checkpoint takes: the networks, the best weights, the average, two moments a weight."""
        student = _bytes_of(self.algorithm.student.state_dict().values())
        moments = 2 * sum(_bytes_of(descent.parameters) for descent in self.descents.values())
        return _bytes_of(self.algorithm.state_dict().values()) + (1 + (self.ema is not None)) * student + moments

    def state(self, kept: bool = True) -> dict[str, Any]:
        """Everything that a later process needs to go on; random numbers are computed, so none are in it.

        Tensors are whole. Processes that share out the weights all have to call it, ``kept`` or not.
        """
        score, optimizers = self.best_score, {name: each.optimizer.state_dict() for name, each in self.descents.items()}
        return {
            "step": self.step,
            "skipped": self.skipped,
            "seconds": self.seconds,
            "best_step": self.best_step,
            "best_score": None if score is None else [score.accuracy, score.negative_loss],
            "best_weights": self.best_weights,
            "algorithm": whole(self.algorithm.state_dict(), kept),
            "ema": None if self.ema is None else whole(self.ema.module.state_dict(), kept),
            "optimizers": whole(optimizers, kept),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what ``state`` returned."""
        self.step, self.skipped, self.seconds = state["step"], state["skipped"], state["seconds"]
        self.best_step = state["best_step"]
        self.best_score = None if state["best_score"] is None else Score(*state["best_score"])
        self.best_weights = state["best_weights"]
        load_whole(self.algorithm, state["algorithm"])
        if self.ema is not None:
            load_whole(self.ema.module, state["ema"])
        for name, descent in self.descents.items():
            load_whole_optimizer(descent.optimizer, state["optimizers"][name])

    def one_step(self, batch: Batch) -> dict[str, Tensor]:
        """Take the next step on a batch as the loader makes it; returns the losses."""
        torch.manual_seed(mixed_int(self.seed, Stream.MODEL_NOISE, self.step, self.process.rank))
        for descent in self.descents.values():
            descent.begin(self.step)
        # What a step that is skipped did to BatchNorm's statistics is undone.
        before = [buffer.clone() for buffer in self.algorithm.buffers()] if self.config.skip_nonfinite else []
        moved = on_device(batch, self.algorithm.student, self.hardware.device)
        losses = self.algorithm.update(moved, self.step, self.runtime)
        if self.config.skip_nonfinite and not self._finite():
            for buffer, value in zip(self.algorithm.buffers(), before, strict=True):
                buffer.copy_(value)
        self.step += 1
        if self.ema is not None:
            self.ema.update(self.algorithm.student, self.step)
        return losses

    @torch.no_grad()
    def _averaged_logits(self, images: Tensor) -> Tensor:
        assert self.ema is not None
        # Each process averages its own images' BatchNorm statistics.
        share_buffers(self.ema.module)
        logits: Tensor = self.ema.module(images)
        return logits

    def _validate(self, validation: Validation) -> dict[str, float]:
        model = self.evaluated_model()
        score = validation.score(model)
        if self.best_score is None or score > self.best_score or self.config.result == "last":
            self.best_score, self.best_step = score, self.step
            self.best_weights = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
        figures = {"validation_accuracy": score.accuracy, "validation_loss": -score.negative_loss}
        for name, network in self.algorithm.validated_networks().items():
            shown = self._wholes.of(network) if self.sharded else network
            figures[f"{name}_validation_accuracy"] = validation.score(shown).accuracy
        return figures

    def _save(self, checkpoints: Path) -> None:
        writes = self.process.rank == 0
        if writes or self.sharded:
            state = self.state(kept=writes)
        if writes:
            save_checkpoint(checkpoints, self.step, state)


def _bytes_of(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
