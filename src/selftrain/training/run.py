"""One training: its name, its parameters, what it reads and where it writes."""

from dataclasses import dataclass
from pathlib import Path

from selftrain.counters import Stream, mixed_int, word
from selftrain.learning.algorithm import Needs
from selftrain.networks.weights import weights_file
from selftrain.params.train import TrainConfig
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.files import sha256_of
from selftrain.plumbing.hardware import HardwareConfig
from selftrain.project import Project
from selftrain.tables.manifest import manifest_digest
from selftrain.tables.predictions import made_from_digest
from selftrain.tables.records import WEIGHTS, RunRecord
from selftrain.tables.selection import selection_digest
from selftrain.training.check import check_hardware


@dataclass(frozen=True)
class Training:
    """One training."""

    name: str
    pipeline: str
    config: TrainConfig
    hardware: HardwareConfig
    seed: int
    corpus: Path
    out: Path
    selection: Path | None = None
    """The round's selection; None for supervised runs."""
    predictions: Path | None = None
    """The teacher's prediction table of the unlabeled split."""
    teacher: Path | None = None
    """The teacher's model folder."""
    track: bool = True
    """Whether it is logged to MLflow."""
    place: str | None = None
    """Its checkpoints' folder in the pipeline's; None: its name."""

    @property
    def run_seed(self) -> int:
        """What the run's random numbers come from: the seed and, unless ``shared_seed``, the run's name."""
        if self.config.shared_seed:
            return self.seed
        return mixed_int(self.seed, Stream.RUN, word(self.name))

    def data_digests(self, labeled_predictions: bool) -> dict[str, str]:
        """Short hashes of everything that it reads; whether predictions of labeled images are part of it."""
        resplit = self.config.resplit
        splits = ("labeled", "validation") if resplit is None else resplit.splits
        digests = {split: manifest_digest(self.corpus / split) for split in splits}
        if self.selection is not None:
            digests["unlabeled"] = manifest_digest(self.corpus / "unlabeled")
            digests["selection"] = selection_digest(self.selection)
        # `st.train` predicts labeled images alone where no other is read.
        if self.predictions is not None and self.predictions.is_dir():
            digests["predictions"] = made_from_digest(self.predictions)
        if labeled_predictions:
            assert self.labeled_predictions is not None
            digests["labeled_predictions"] = made_from_digest(self.labeled_predictions)
        # DVC does not watch them: a checkpoint from other weights is not gone on with.
        digests |= {name: sha256_of(path) for name, path in self._weights_files().items() if path.is_file()}
        if self.teacher is not None:
            digests["teacher"] = self.teacher_weights()[:32]
        return digests

    def _weights_files(self) -> dict[str, Path]:
        """The local files that networks start from, by the names of their links."""
        networks = {WEIGHTS: self.config}
        networks |= {f"{WEIGHTS} of {name}": self.config.of_network(name) for name in self.config.networks}
        files = {name: weights_file(network.weights) for name, network in networks.items() if network.weights}
        return {name: path for name, path in files.items() if path is not None}

    @property
    def labeled_predictions(self) -> Path | None:
        """The teacher's prediction table of the labeled split: beside the other."""
        return None if self.predictions is None else self.predictions.with_name("labeled")

    def paths(self) -> dict[str, str]:
        """The paths of everything that it reads: `selftrain lineage` follows a model back to its data by them."""
        read = {
            "corpus": self.corpus,
            "selection": self.selection,
            "predictions": self.predictions,
            "teacher": self.teacher,
            **self._weights_files(),
        }
        return {name: str(path) for name, path in read.items() if path is not None}

    def teacher_weights(self) -> str:
        """The sha256 of the teacher's weights; empty for supervised runs."""
        if self.teacher is None:
            return ""
        return sha256_of(self.teacher / "model.safetensors")

    def teacher_run(self) -> RunRecord | None:
        """The teacher's ``run.json``; None for supervised runs, and for models that no run made."""
        if self.teacher is None or not (self.teacher / "run.json").is_file():
            return None
        return RunRecord.read(self.teacher / "run.json")

    def check(self, phase: TrainConfig, needs: Needs, world_size: int) -> None:
        """Raises UserError for a phase whose parameters do not fit its algorithm or the number of processes."""
        uses_pool, algorithm = "unlabeled" in needs.views, phase.algorithm.name
        if uses_pool and phase.pool == "selection" and (self.selection is None or self.predictions is None):
            raise UserError(
                f"'{self.name}': {algorithm} needs the pseudo-labels of a teacher; put the run under `rounds`"
            )
        if needs.reads_table("labeled") and self.predictions is None:
            raise UserError(f"'{self.name}': {algorithm} reads its teacher's table; put the run under `rounds`")
        if needs.teacher and self.teacher is None:
            raise UserError(f"'{self.name}': {algorithm} runs its teacher itself; put the run under `rounds`")
        if phase.batch_size % world_size:
            raise UserError(
                f"train.batch_size of '{self.name}': {phase.batch_size} does not divide by {world_size} processes"
            )
        of_a_process = phase.batch_size // world_size
        if of_a_process % phase.grad_accum_steps:
            raise UserError(
                f"train.grad_accum_steps of '{self.name}': a process's {of_a_process} labeled images a step do not "
                f"divide by {phase.grad_accum_steps}"
            )
        check_hardware(phase, needs, self.hardware, f"'{self.name}'")
        if phase.init == "teacher" and self.teacher is None:
            raise UserError(f"train.init of '{self.name}': there is no teacher to start from; put it under `rounds`")


def training_of(project: Project, name: str, config: TrainConfig, hardware: HardwareConfig) -> Training:
    """A run of a project, with the folders that it has there."""
    run = project.run(name)
    teacher = None if run.teacher is None else project.run(run.teacher)
    return Training(
        name,
        project.name,
        config,
        hardware,
        project.seed,
        project.corpus,
        run.model,
        run.selection,
        None if teacher is None else teacher.predictions / "unlabeled",
        None if teacher is None else teacher.model,
    )
