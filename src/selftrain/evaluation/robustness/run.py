"""The stage ``robustness``: one run through every suite, condition by condition, into its own tables.

Conditions are the same for every run (their random numbers come from the seed and the image's key), so runs are
compared image by image. A killed stage goes on with the tables that are missing.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from selftrain.code import code_digest
from selftrain.evaluation.robustness.subject import Subject
from selftrain.evaluation.robustness.testbed import Condition, Testbed
from selftrain.params.robustness import RobustnessConfig
from selftrain.plumbing.by_name import find_module
from selftrain.plumbing.engines import Here, engine_of
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.hardware import HardwareConfig
from selftrain.plumbing.progress import progress_bar
from selftrain.tables.corpus import classes_of
from selftrain.tables.manifest import manifest_digest
from selftrain.tables.records import RunRecord, TestedRecord
from selftrain.tables.robustness import made_from, write_table


def run_suites(
    model: Path, corpus: Path, config: RobustnessConfig, seed: int, machine: HardwareConfig, out: Path
) -> None:
    """Write every table of a run; tables that were made from the same inputs stay as they are.

    Raises UserError for other classes than the corpus's, for missing folders, and for an unknown suite.
    """
    subject = Subject(model, machine)
    if subject.classes != classes_of(corpus):
        raise UserError(f"{model}: was trained on other classes than {corpus} has; train it again")
    record = RunRecord.read(model / "run.json")
    out.mkdir(parents=True, exist_ok=True)
    testbed = Testbed(subject, corpus, config, seed, machine.predict_batch_size)
    engine = engine_of(machine, Here(), on_gpu=True)
    images = {split: manifest_digest(corpus / split) for split in ("validation", "test")}
    made_of = [subject.digest, seed, images, config.images, config.image_size]
    writer = TableWriter(testbed)
    tables: list[Table] = []
    for suite, conditions in writer.suites.items():
        of_suite = [*made_of, code_digest("robustness", config.modules([suite]))]
        for condition in conditions.values():
            stamp = hashlib.sha256(repr([*of_suite, condition.parameters]).encode()).hexdigest()[:32]
            tables.append(Table(suite, condition.name, out / suite / f"{condition.name}.parquet", stamp))
    for path in set(out.rglob("*.parquet")) - {table.path for table in tables}:
        path.unlink()
    todo = [table for table in tables if made_from(table.path) != table.stamp]

    def make_work() -> TableWriter:
        return writer

    if todo and not engine.shares_memory:
        make_work = partial(_on_a_node, model, corpus, config, seed, engine.share_of(machine))
    with progress_bar(f"robustness {out.name}", total=len(tables), done=len(tables) - len(todo)) as advance:
        for _ in engine.done(make_work, todo, lambda table: str(table.path), f"robustness {out.name}"):
            advance()
    TestedRecord(**record.as_dict(), robustness_size=testbed.size).write(out / "run.json")


@dataclass(frozen=True)
class Table:
    """One condition's table, and what it has to be made from."""

    suite: str
    condition: str
    path: Path
    stamp: str


class TableWriter:
    """Makes and writes tables of one run."""

    def __init__(self, testbed: Testbed) -> None:
        self.suites = {
            suite: {condition.name: condition for condition in _conditions(suite, testbed)}
            for suite in testbed.config.all_suites
        }
        """The conditions of each suite, by name."""

    def __call__(self, table: Table) -> None:
        """Write a table, if nobody has meanwhile."""
        if made_from(table.path) == table.stamp:
            return
        write_table(table.path, self.suites[table.suite][table.condition].make(), table.stamp)


def _on_a_node(model: Path, corpus: Path, config: RobustnessConfig, seed: int, machine: HardwareConfig) -> TableWriter:
    return TableWriter(Testbed(Subject(model, machine), corpus, config, seed, machine.predict_batch_size))


def _conditions(suite: str, testbed: Testbed) -> Iterator[Condition]:
    module = find_module("evaluation.robustness.suites", suite, "robustness.suites")
    found: Iterator[Condition] = module.conditions(testbed)
    return found
