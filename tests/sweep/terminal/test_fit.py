"""Names that are cut to fit a terminal stay unique and no longer than they must be."""

from hypothesis import given
from hypothesis import strategies as st

from sweep.terminal.fit import readable, shortened

NAMES = st.lists(st.text("abc-", min_size=1, max_size=40), min_size=1, max_size=12, unique=True)


@given(NAMES, st.integers(8, 60))
def test_cut_names_are_unique(names: list[str], width: int) -> None:
    cut = shortened(names, width)
    assert list(cut) == names
    assert len(set(cut.values())) == len(names)
    assert all(len(short) <= len(name) for name, short in cut.items())
    assert all(short == name for name, short in cut.items() if len(name) <= width)


def test_names_are_cut_in_the_middle() -> None:
    names = [f"simplified_mini-rotate90-s{seed}" for seed in range(3)]
    assert list(shortened(names, 20).values()) == [f"simplified…tate90-s{seed}" for seed in range(3)]
    middle = ["inception_v1-baseline-with-a-tail", "inception_v1-rotate90-with-a-tail"]
    assert all(len(short) <= 24 for short in shortened(middle, 24).values())
    assert shortened([], 20) == {}


def test_hashes_are_left_out_where_the_rest_is_unique() -> None:
    assert readable(["a-s0-1234", "a-s1-1234", "a-s1-5678"]) == {
        "a-s0-1234": "a-s0", "a-s1-1234": "a-s1-1234", "a-s1-5678": "a-s1-5678",
    }  # fmt: skip
