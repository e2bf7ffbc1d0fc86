import random

import pytest

from selftrain.corpus.source_image import SourceImage
from selftrain.corpus.splits import cut
from selftrain.plumbing.errors import UserError


def images(**per_class: int) -> list[SourceImage]:
    return [
        SourceImage(f"{name}/{number}", name, lambda: b"")
        for name, count in per_class.items()
        for number in range(count)
    ]


def test_every_split_gets_its_share_of_every_class() -> None:
    result = cut(images(a=40, b=10, c=3), {"validation": 0.1, "test": 0.25}, seed=0)
    counts = {
        split: [sum(i.class_name == name for i in members) for name in "abc"] for split, members in result.items()
    }
    assert counts == {"labeled": [26, 7, 1], "validation": [4, 1, 1], "test": [10, 2, 1]}
    sources = [image.source for members in result.values() for image in members]
    assert len(sources) == len(set(sources)) == 53


def test_the_cut_depends_on_seed_and_paths_not_on_order() -> None:
    members = images(a=30, b=30)
    shuffled = random.Random(1).sample(members, len(members))

    def sources(seed: int, members: list[SourceImage]) -> list[set[str]]:
        result = cut(members, {"test": 0.2}, seed)
        return [{image.source for image in result[split]} for split in ("labeled", "test")]

    assert sources(0, members) == sources(0, shuffled)
    assert sources(0, members) != sources(1, members)


def test_what_people_answered_stays_labeled_and_moves_no_other_image() -> None:
    members = images(a=30, b=30)
    answers = [SourceImage(f"a/answer-{number}-x.png", "a", lambda: b"") for number in range(20)]
    before, after = (cut(given, {"validation": 0.2, "test": 0.2}, seed=0) for given in (members, members + answers))
    assert after["labeled"] == before["labeled"] + answers
    assert (after["validation"], after["test"]) == (before["validation"], before["test"])


def test_a_class_too_small_is_named() -> None:
    with pytest.raises(UserError, match="class 'b' has 2 labeled images, too few to cut validation and test from"):
        cut(images(a=9, b=2), {"validation": 0.1, "test": 0.1}, seed=0)


def test_a_file_listed_twice_stays_in_one_split() -> None:
    result = cut(images(a=11) * 2, {"validation": 0.23}, seed=0)
    labeled, validation = ({image.source for image in result[split]} for split in ("labeled", "validation"))
    assert not labeled & validation
    assert (len(result["labeled"]), len(result["validation"])) == (2 * 8, 2 * 3)
