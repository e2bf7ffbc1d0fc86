"""What selftrain adds to the FiftyOne App: correcting a label in two clicks, and the rounds' counts."""

import re
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
from fiftyone.operators import types

REJECT, NO_COPY, FIELD = "reject", "no_copy", "corrected"
TAGS = (REJECT, NO_COPY)


def chosen(ctx: Any) -> Any:
    """The selected samples, or the one that is open; None if there is neither."""
    ids = list(ctx.selected) or ([ctx.current_sample] if ctx.current_sample else [])
    return ctx.dataset.select(ids).match(fo.ViewField("split") == "unlabeled") if ids else None


class _OnSamples(foo.Operator):  # type: ignore[misc]
    """An operator on the chosen samples, with a button above the grid."""

    name, label, icon = "", "", ""

    @property
    def config(self) -> Any:
        """How the App lists it."""
        return foo.OperatorConfig(name=self.name, label=self.label, dynamic=True, icon=self.icon)

    def resolve_placement(self, ctx: Any) -> Any:
        """A button beside the grid's actions, and in the opened sample."""
        return types.Placement(
            types.Places.SAMPLES_GRID_SECONDARY_ACTIONS, types.Button(label=self.label, icon=self.icon, prompt=True)
        )

    def resolve_input(self, ctx: Any) -> Any:
        """Say how many images it is about."""
        inputs = types.Object()
        view = chosen(ctx)
        if view is None or not len(view):
            inputs.view("none", types.Warning(label="Select unlabeled images first, or open one"))
        else:
            self.ask(ctx, inputs, len(view))
        return types.Property(inputs, view=types.View(label=self.label))

    def ask(self, ctx: Any, inputs: Any, count: int) -> None:
        """The operator's own questions."""
        inputs.view("count", types.Notice(label=f"{count} images"))

    def execute(self, ctx: Any) -> dict[str, int]:
        """Do it, and show it."""
        view = chosen(ctx)
        if view is None:
            return {"images": 0}
        self.apply(ctx, view)
        shown_anew(ctx)
        return {"images": len(view)}

    def apply(self, ctx: Any, view: Any) -> None:
        """What it does to the samples."""
        raise NotImplementedError


class CorrectLabel(_OnSamples):
    """Give the chosen images another label."""

    name, label, icon = "correct_label", "Correct the label", "edit"

    def ask(self, ctx: Any, inputs: Any, count: int) -> None:
        """Which class."""
        classes = types.AutocompleteView(label=f"Label of {count} images")
        inputs.enum("label", ctx.dataset.info["classes"], required=True, view=classes)

    def apply(self, ctx: Any, view: Any) -> None:
        """Set the field ``corrected``."""
        label_as(view, ctx.params["label"])


class LabelByKey(foo.Operator):  # type: ignore[misc]
    """Give the chosen images the class of a digit key: what ``keys.js`` calls."""

    @property
    def config(self) -> Any:
        """It is no entry of the App's list."""
        return foo.OperatorConfig(name="label_by_key", label="Label by key", unlisted=True)

    def execute(self, ctx: Any) -> None:
        """Set the field ``corrected``, if images are chosen and there is a class of that key."""
        classes, view, place = ctx.dataset.info.get("classes", []), chosen(ctx), ctx.params["place"]
        if FIELD in ctx.dataset.get_field_schema() and view is not None and place < len(classes):
            label_as(view, classes[place])
            shown_anew(ctx)


def shown_anew(ctx: Any) -> None:
    """Show what was done; the next key is about other images."""
    ctx.ops.clear_selected_samples()
    ctx.ops.reload_dataset()


def label_as(view: Any, name: str) -> None:
    """Set the field ``corrected`` of samples."""
    view.untag_samples(TAGS)
    view.set_values(FIELD, [fo.Classification(label=name) for _ in range(len(view))])


class TakeBack(_OnSamples):
    """Forget what was said of the chosen images."""

    name, label, icon = "take_back", "Take corrections back", "undo"

    def apply(self, ctx: Any, view: Any) -> None:
        """Remove tag and label."""
        view.untag_samples(TAGS)
        view.set_values(FIELD, [None] * len(view))


class Reject(TakeBack):
    """Leave the chosen images out of every round, whatever was said of them."""

    name, label, icon = REJECT, "Reject", "block"

    def apply(self, ctx: Any, view: Any) -> None:
        """Tag them with the operator's name."""
        super().apply(ctx, view)
        view.tag_samples(self.name)


class NoCopy(Reject):
    """Say that the chosen images are no altered copies of others, whatever ingest found."""

    name, label, icon = NO_COPY, "No copy", "difference"


class Rounds(foo.Panel):  # type: ignore[misc]
    """Each round's images by decision and class, of the whole pool and not just of the sample that is shown."""

    @property
    def config(self) -> Any:
        """How the App lists it."""
        return foo.PanelConfig(name="rounds", label="Rounds", icon="table_chart", allow_multiple=False)

    def on_load(self, ctx: Any) -> None:
        """Start with the last round."""
        rounds = names_of(ctx.dataset)
        ctx.panel.state.round = rounds[-1] if rounds else None

    def on_change_round(self, ctx: Any) -> None:
        """Show another round."""
        ctx.panel.state.round = ctx.params.get("value")

    def render(self, ctx: Any) -> Any:
        """A choice of round, and its table."""
        panel = types.Object()
        rounds = names_of(ctx.dataset)
        if not rounds:
            panel.md("No round was selected yet: run `dvc repro`.", name="none")
            return types.Property(panel)
        choice = types.DropdownView()
        for name in rounds:
            choice.add_choice(name, label=name)
        panel.enum("round", choice.values(), view=choice, label="Round", on_change=self.on_change_round)
        shown = ctx.panel.get_state("round") or rounds[-1]
        panel.md(round_table(ctx.dataset, shown), name=f"table_{shown}")
        return types.Property(panel, view=types.GridView(orientation="vertical"))


def names_of(dataset: Any) -> list[str]:
    """The rounds that the dataset knows, in their order."""
    return list(dict.fromkeys(row["round"] for row in dataset.info.get("rounds", [])))


def round_table(dataset: Any, name: str) -> str:
    """A round's counts as a Markdown table: classes down, decisions across, and the images of the balanced epoch."""
    rows = [row for row in dataset.info["rounds"] if row["round"] == name]
    classes = dataset.info["classes"]
    decisions = sorted({row["decision"] for row in rows})
    heads = ["class", *(decision.replace("_", " ") for decision in decisions), "in an epoch"]
    lines = [f"**{dataset.info['sample']}**; below, the whole pool.", "", _line(heads), _line(["---"] * len(heads))]
    for label, class_name in [*enumerate(classes), (None, "")]:
        of_class = [row for row in rows if label in (None, row["label"])]
        counts = [sum(row["images"] for row in of_class if row["decision"] == decision) for decision in decisions]
        name = "**all**" if label is None else _as_markdown(class_name)
        lines.append(_line([name, *(f"{count:,}" for count in [*counts, sum(row["copies"] for row in of_class)])]))
    return "\n".join(lines)


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _as_markdown(text: str) -> str:
    """A user's text as Markdown that shows just this text; a copy, since FiftyOne loads this file alone."""
    return re.sub(r"([\\`*_{}\[\]()<>#+\-.!|$~&:])", r"\\\1", " ".join(text.split()))


def register(plugin: Any) -> None:
    """Called by FiftyOne."""
    for part in (CorrectLabel, LabelByKey, Reject, NoCopy, TakeBack, Rounds):
        plugin.register(part)
