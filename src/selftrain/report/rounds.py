"""Which run is the best, and where going on from round to round stopped paying."""

from dataclasses import dataclass

from selftrain.report.runs import EvaluatedRun, chain_saw


@dataclass(frozen=True)
class Verdict:
    """What the validation split says of a round."""

    gain: float
    """Validation accuracy less the teacher's."""
    low: float
    high: float
    """The gain's 95% interval."""
    after: str | None
    """The earlier round of its chain that did not beat its teacher, if there is one: this one is beyond the stop."""

    @property
    def beats_teacher(self) -> bool:
        """Whether the gain is more than its interval's half: the interval lies above zero."""
        return self.low > 0


def verdicts(runs: list[EvaluatedRun]) -> dict[str, Verdict]:
    """Each round's verdict by name, but for those that are not judged: they or their teachers saw validation images, or
    they are smaller than their teacher, which is not to be beaten then.

    ``runs`` has teachers before their students, as ``load_runs`` gives them.
    """
    found: dict[str, Verdict] = {}
    tainted = {run.name for run in runs if chain_saw(run, "validation", runs)}
    for run in runs:
        smaller = run.record.get("parameters", 0) < (run.record.get("teacher_parameters") or 0)
        if "validation_gain" not in run.metrics or run.name in tainted or smaller:
            continue
        gain, low, high = (float(run.metrics[f"validation_gain{end}"]) for end in ("", "_low", "_high"))
        before = found.get(run.teacher or "")
        after = None
        if before is not None:
            after = before.after or (None if before.beats_teacher else run.teacher)
        found[run.name] = Verdict(gain, low, high, after)
    return found


def stop_lines(runs: list[EvaluatedRun]) -> list[str]:
    """What to tell of the stop rule: a line for each round at which it applies, with the rounds beyond."""
    found = verdicts(runs)
    teachers = {run.name: run.teacher for run in runs}
    lines = []
    for name, verdict in found.items():
        if verdict.beats_teacher or verdict.after:
            continue
        beyond = [other for other, later in found.items() if later.after == name]
        lines.append(
            f"{name} does not beat {teachers[name]} on validation by more than its interval "
            f"({verdict.gain:+.1%}, {verdict.low:+.1%} to {verdict.high:+.1%})"
            + (f"; beyond the stop: {', '.join(beyond)}" if beyond else "")
        )
    return lines


def best_run(runs: list[EvaluatedRun]) -> EvaluatedRun:
    """The run with the highest validation accuracy, of those that may be chosen by it; of equal ones the lower loss.

    A run may not that was itself trained on validation images, or whose chain of teachers saw test images, or that was
    not trained here.
    """
    trained = [run for run in runs if run.record.get("algorithm") != "adopt"] or runs
    fair = [run for run in trained if not run.saw("validation") and not chain_saw(run, "test", runs)] or trained
    return max(fair, key=lambda run: (run.metrics["validation_accuracy"], -run.metrics["validation_nll"]))
