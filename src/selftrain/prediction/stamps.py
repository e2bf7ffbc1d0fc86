"""Which parts of a prediction table are wanted, by their stamps, and which of them have to be made."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from selftrain.code import code_digest
from selftrain.plumbing.files import TEMPORARY_PREFIX
from selftrain.plumbing.locks import has_writer
from selftrain.prediction.noised_teacher import NoisedTeacher
from selftrain.tables.keys import shard_of_part
from selftrain.tables.manifest import manifest_parts
from selftrain.tables.predictions import made_from, made_from_text
from selftrain.tables.records import check_weights


@dataclass(frozen=True)
class MadeWith:
    """What every part of a table depends on, beside its images."""

    weights: str
    others: str
    """A hash of the rest."""


def made_with(model_folder: Path, noised: NoisedTeacher | None, layer: int | None, top_k: int | None) -> MadeWith:
    """Of a run's tables. Raises UserError if its weights are not those that it was trained to."""
    digest = hashlib.sha256((model_folder / "config.json").read_bytes())
    digest.update(code_digest("predict").encode())
    if noised is not None:
        policy = code_digest("predict", [f"images.policies.{noised.config.randaugment_policy}"])
        digest.update(f"{noised.noises} {noised.seed} {noised.config} {policy}".encode())
    if layer is not None:
        digest.update(f"embeddings_layer {layer}".encode())
    if top_k is not None:
        digest.update(f"top_k {top_k}".encode())
    return MadeWith(check_weights(model_folder), digest.hexdigest()[:32])


def wanted(split_folder: Path, made_with: MadeWith) -> dict[int, str]:
    """A split's shards, each with the stamp that its part has to have."""
    found = {}
    for path in manifest_parts(split_folder):
        images = hashlib.sha256(path.read_bytes()).hexdigest()[:32]
        found[shard_of_part(path.name)] = made_from_text(made_with.weights, made_with.others, images)
    return found


def outdated(wanted: dict[int, str], folders: list[Path]) -> dict[int, str]:
    """Of the shards, those of which a part is missing or has another stamp."""
    return {
        shard: stamp for shard, stamp in wanted.items() if any(made_from(folder, shard) != stamp for folder in folders)
    }


def remove_strays(wanted: dict[int, str], folders: list[Path]) -> None:
    """Remove parts of shards that are gone, and what killed processes left."""
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        # A temporary file belongs to a killed process, or to one that holds its part's lock.
        for leftover in folder.glob(f"{TEMPORARY_PREFIX}*"):
            if not has_writer(folders[0] / leftover.name[leftover.name.index("part-") :]):
                leftover.unlink(missing_ok=True)
        for part in folder.glob("part-*.parquet"):
            if shard_of_part(part.name) not in wanted:
                part.unlink()
