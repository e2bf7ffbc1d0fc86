from hypothesis import given
from hypothesis import strategies as st

from selftrain.tables import keys


@given(st.sampled_from(keys.SPLITS), st.integers(0, 10**8 - 1), st.integers(0, 10**6 - 1))
def test_a_key_tells_its_split_and_shard(split: str, shard: int, index: int) -> None:
    key = keys.make_key(split, shard, index)
    assert keys.split_of(key) == split
    assert keys.shard_of(key) == shard
    assert key % 10**6 == index
    assert key < 2**53, "a browser's numbers must hold it"


def test_names() -> None:
    assert keys.make_key("unlabeled", 12, 34) == 200000012000034
    assert keys.shard_name(12) == "shard-00000012.tar"
    assert keys.shard_of_part(keys.part_name(12)) == 12
