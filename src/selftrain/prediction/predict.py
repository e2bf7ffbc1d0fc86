"""The stage ``predict``: one network labels every split that a run's prediction is needed on.

From the clean image and the network in eval mode, unless `predict.noise` says otherwise for the pool. Parts that
are there and were made from the same model, code and images stay, so a killed run goes on and a grown pool costs
only its growth.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from selftrain.params.predict import PredictConfig
from selftrain.plumbing.engine import Engine
from selftrain.plumbing.engines import Here, engine_of
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.files import read_json
from selftrain.plumbing.hardware import HardwareConfig
from selftrain.plumbing.progress import progress_bar
from selftrain.plumbing.room import check_room
from selftrain.prediction.noised_teacher import NoisedTeacher
from selftrain.prediction.part_writer import LARGEST, Parts, PartWriter
from selftrain.prediction.stamps import made_with, outdated, remove_strays, wanted
from selftrain.tables.corpus import classes_of
from selftrain.tables.embeddings import FOLDER, embeddings_folder
from selftrain.tables.manifest import part_path
from selftrain.tables.parquet import row_count
from selftrain.tables.records import label_names

KEY_BYTES = 32
"""Of a row beside its arrays."""
LOCKED_TOGETHER = 64
"""Parts that a process claims at once: loader workers go on from one of them to the next."""
LOCKED_ON_CLUSTER = 4
"""The same where there are many workers, of which one may die."""


def predict(
    model_folder: Path,
    corpus: Path,
    splits: Sequence[str],
    out: Path,
    config: PredictConfig,
    seed: int,
    machine: HardwareConfig,
    rank: int = 0,
    world_size: int = 1,
) -> None:
    """Write ``out/<split>/part-*.parquet`` for every split, and ``out/embeddings/<split>`` if they are asked for.

    Of ``world_size`` processes the ``rank``-th writes every so many-th part. A part has one writer at a time, so
    processes that were given the same parts wait for one another and make nothing twice.

    Raises UserError if classes or files do not fit.
    """
    classes = classes_of(corpus)
    network = read_json(model_folder / "config.json", "dvc repro")
    if label_names(model_folder) != classes:
        raise UserError(f"{model_folder}: was trained on other classes than {corpus} has; train it again")
    noised = NoisedTeacher(model_folder, config.noise, seed) if config.noise else None
    engine = engine_of(machine, Here(), on_gpu=True)
    together = LOCKED_TOGETHER if engine.shares_memory else LOCKED_ON_CLUSTER
    layer = config.embeddings_layer
    # Held-out and labeled images are few, and all of their numbers are measured with.
    ways = {split: (noised, config.top_k) if split == "unlabeled" else (None, None) for split in splits}
    # The weights are hashed once for each way to label.
    stamps_of = {way: made_with(model_folder, way[0], layer, way[1]) for way in set(ways.values())}
    units: list[Parts] = []
    total = 0
    tables: list[tuple[dict[int, str], list[Path]]] = []
    for split in splits:
        embeddings = embeddings_folder(out, split) if config.embeddings else None
        folders = [out / split, *([] if embeddings is None else [embeddings])]
        teacher, top_k = ways[split]
        every = wanted(corpus / split, stamps_of[ways[split]])
        tables.append((every, folders))
        if rank == 0:
            remove_strays(every, folders)
        todo = outdated(dict(list(every.items())[rank::world_size]), folders)
        images = sum(row_count(part_path(corpus / split, shard)) for shard in todo)
        if images:
            width = min(len(classes), 2 * (top_k or len(classes)))
            width += network.get("num_features", 0) if config.embeddings else 0
            check_room(out / split, images * (KEY_BYTES + 2 * width), f"predictions of {images:,} images")
        total += images
        for some in _in_groups(todo, together):
            units.append(Parts(corpus / split, out / split, embeddings, teacher is not None, top_k, some, images))
    if units:
        _write(
            units, total, engine, partial(PartWriter, model_folder, engine.share_of(machine), noised, layer), out.name
        )
        if rank == 0:
            # A node that died while it wrote a part, which another one made again, has left some of it.
            for every, folders in tables:
                remove_strays(every, folders)
    if not config.embeddings and rank == 0:
        shutil.rmtree(out / FOLDER, ignore_errors=True)


def _write(units: list[Parts], total: int, engine: Engine, make: Callable[..., PartWriter], name: str) -> None:
    """Have all units written; tell of numbers that were cut."""
    clamped: dict[Path, int] = {}
    with progress_bar(f"predict {name}", total=total) as advance:
        # Where units run elsewhere, the bar moves when they come back.
        work = partial(make, advance if engine.shares_memory else None)
        for unit, written in engine.done(work, units, lambda unit: str(unit.out), f"predict {name}"):
            clamped[unit.out] = clamped.get(unit.out, 0) + written.clamped
            if not engine.shares_memory:
                advance(written.images)
    for table, count in clamped.items():
        if count:
            print(f"{table}: {count:,} numbers beyond float16 became ±{LARGEST:,.0f}, its largest")


def _in_groups(stamps: dict[int, str], size: int) -> Iterator[dict[int, str]]:
    items = list(stamps.items())
    for start in range(0, len(items), size):
        yield dict(items[start : start + size])
