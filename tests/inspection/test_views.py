from pathlib import Path
from types import SimpleNamespace

import polars as pl

from selftrain.inspection import plugin
from selftrain.inspection.rounds import BrowsedRun
from selftrain.inspection.views import all_views


def test_views_that_need_truth_are_left_out_without_it() -> None:
    runs = [BrowsedRun("t", Path("p"), None, None)]
    runs += [BrowsedRun(f"student{n}", Path("p"), "t" if n == 1 else "student1", Path("s")) for n in (1, 2)]
    without = {view.name for view in all_views(runs, truth_known=False)}
    left_out = {view.name for view in all_views(runs)} - without
    assert left_out == {
        f"student{n}: {name}" for n in (1, 2) for name in ("confident and wrong", "out-of-domain kept by mistake")
    }


def test_a_class_name_is_no_markdown_in_the_app() -> None:
    dataset = SimpleNamespace(
        info={
            "classes": ["__init__", "a*b*c", "[x](http://y)", "<img>", "a|b"],
            "sample": "5 of 5",
            "rounds": [{"round": "student1", "decision": "kept", "label": 0, "images": 3, "copies": 4}],
        }
    )
    lines = plugin.round_table(dataset, "student1").splitlines()
    assert [line.split(" | ")[0] for line in lines[4:]] == [
        r"| \_\_init\_\_", r"| a\*b\*c", r"| \[x\]\(http\://y\)", r"| \<img\>", r"| a\|b", "| **all**",
    ]  # fmt: skip


def test_a_label_that_flips_back_has_a_view() -> None:
    params = {
        "supervised": {"t": {}},
        "rounds": {f"s{n}": {"teacher": f"s{n - 1}" if n > 1 else "t"} for n in (1, 2, 3)},
    }
    runs = [BrowsedRun("t", Path("p"), None, None)]
    runs += [BrowsedRun(name, Path("p"), entry["teacher"], Path("s")) for name, entry in params["rounds"].items()]
    (view,) = [view for view in all_views(runs) if "flipped back" in view.name]
    rows = pl.DataFrame({"s1_pseudo": [1, 1, 1], "s2_pseudo": [2, 1, 2], "s3_pseudo": [1, 1, 3]})
    assert rows.filter(view.rows()).rows() == [(1, 2, 1)]
