"""`sparrow metrics`: the text is what the format says, whatever is in it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sparrow_mp.cli.metrics import Family, _exposition
from tests.support.exposition import read

texts = st.text(st.characters(exclude_categories=["Cs"]))


@given(
    texts,
    st.dictionaries(texts, st.floats(0, 1e18) | st.integers(0, 1 << 60), min_size=1),
    st.sampled_from(["gauge", "counter"]),
)
def test_any_label_any_value(words: str, values: dict[str, float], kind: str) -> None:
    name = "sparrow_x_total" if kind == "counter" else "sparrow_x"
    family = Family(name, kind, words)
    for label, value in values.items():
        family.add(value, label=label)
    got = read("".join(_exposition([family, Family("sparrow_empty", "gauge", "")])))
    assert got.keys() == {name}
    assert got[name].values == {(("label", label),): float(value) for label, value in values.items()}
    assert got[name].help == words.replace("\\", "\\\\").replace("\n", "\\n")
