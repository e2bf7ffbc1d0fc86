"""Put what `make bench` measured into docs/performance.md, between its markers, and draw time and memory over rows.

python benchmarks/speed/document.py
"""

import json
import re
from pathlib import Path

import matplotlib.pyplot as plt
from measure import OUT

DOCUMENT, PICTURE = Path("docs/performance.md"), Path("docs/images/scale.png")
STAGES = (
    "ingest",
    "hashes",
    "decoding",
    "clean batches",
    "noised views",
    "predict",
    "training",
    "processes",
    "select",
    "start",
)
MARKED = r"(<!-- {name} -->\n).*?(<!-- /{name} -->)"


def main() -> None:
    text = DOCUMENT.read_text()
    for stage in STAGES:
        if found := measured(stage):
            text = between(text, stage, as_table(found))
    if found := measured("scale"):
        rows = found["rows"]
        draw(rows)
        text = between(text, "scale", scale_table(rows))
    DOCUMENT.write_text(text)


def measured(stage: str) -> dict | None:
    """What a benchmark found; None where it was not run, or at tiny sizes (`QUICK=1`)."""
    file = OUT / f"{stage}.json"
    found = json.loads(file.read_text()) if file.exists() else {"quick": True}
    if found.get("quick", True):
        print(f"{stage}: not measured; its table stays")
        return None
    return found


def between(text: str, name: str, content: str) -> str:
    """The text with other content between a name's markers."""
    found = re.compile(MARKED.format(name=re.escape(name)), re.DOTALL)
    assert found.search(text), f"{DOCUMENT} has no markers of {name}"
    return found.sub(lambda match: f"{match[1]}\n{content}\n\n{match[2]}", text)


def as_table(document: dict) -> str:
    lines = ["| | ours | held against | ratio |", "| --- | ---: | --- | ---: |"]
    for row in document["rows"]:
        ours, theirs = (
            f"{figure:,.0f}" if figure >= 100 else f"{figure:.3g}" for figure in (row["ours"], row["theirs"])
        )
        lines.append(f"| {row['what']} | {ours} {row['unit']} | {row['against']}: {theirs} | {row['ratio']:.2f} |")
    return "\n".join(lines)


def scale_table(rows: list[dict]) -> str:
    counts = sorted({row["rows"] for row in rows})
    stages = list(dict.fromkeys(row["stage"] for row in rows))
    by_place = {(row["stage"], row["rows"]): row for row in rows}
    lines = ["| | " + " | ".join(f"{count:,} rows" for count in counts) + " |", "| --- |" + " ---: |" * len(counts)]
    for stage in stages:
        cells = [by_place.get((stage, count)) for count in counts]
        shown = [f"{cell['seconds']:.1f} s, {cell['peak'] / 2**20:,.0f} MiB" if cell else "" for cell in cells]
        lines.append(f"| {stage} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def draw(rows: list[dict]) -> None:
    figure, (time, memory) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for stage in dict.fromkeys(row["stage"] for row in rows):
        of_stage = sorted((row for row in rows if row["stage"] == stage), key=lambda row: row["rows"])
        counts = [row["rows"] for row in of_stage]
        time.plot(counts, [row["seconds"] for row in of_stage], marker="o", label=stage)
        memory.plot(counts, [max(row["peak"], 2**20) / 2**20 for row in of_stage], marker="o")
    for axes, name in ((time, "seconds"), (memory, "peak memory, MiB")):
        axes.set(xscale="log", yscale="log", xlabel="rows", ylabel=name)
        axes.grid(alpha=0.3)
    time.legend(fontsize=8)
    figure.savefig(PICTURE, dpi=110)


if __name__ == "__main__":
    main()
