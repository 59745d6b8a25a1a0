"""What a run prints becomes lines: whatever comes in whatever pieces, the text is the one that came."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sparrow_mp.run.output import LINE_LIMIT, LineSplitter

Piece = tuple[str, bool]

# Beginnings, ends and middles of characters, invalid bytes, line breaks: what can go wrong at a cut.
BYTES = st.lists(
    st.sampled_from(
        [b"\n", b"\r\n", b"a", "é".encode(), "€".encode(), "🐦".encode(), "\u07ff".encode(), "\u0800".encode(), "\uffff".encode(), b"\xff", b"\x80", b"\xc3", b"\xe2\x82",
         b"\xf0\x9f\x90", b"\xed\xa0\x80", b"\xc0\x80", b"\xf8", b"\xe0\x80", b"\0", b"\x85", "\u2028".encode()]
    ),
    max_size=30,
).map(b"".join)  # fmt: skip


def feed(chunks: Sequence[bytes], flush_after: frozenset[int] = frozenset()) -> list[Piece]:
    """All pieces; a prompt is due after the chunks that are named."""
    splitter = LineSplitter()
    pieces: list[Piece] = []
    for number, chunk in enumerate(chunks):
        pieces += splitter.feed(chunk)
        if number in flush_after:
            pieces += splitter.flush()
    return pieces + splitter.finish()


def joined(pieces: Sequence[Piece]) -> list[str]:
    """The lines that the pieces are parts of: all parts but the last bear ``partial``."""
    lines: list[str] = []
    goes_on = False
    for text, partial in pieces:
        if goes_on:
            lines[-1] += text
        else:
            lines.append(text)
        goes_on = partial
    assert not goes_on, "the last part of a line is not partial"
    return lines


def expected(data: bytes) -> list[str]:
    """The lines of the whole, decoded in one."""
    lines = data.decode("utf-8", "replace").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


@given(BYTES | st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=8), st.frozensets(st.integers(0, 9)))
@example(b"\xe2\x82\xac", [1, 2], frozenset({0, 1}))
@example(b"a\xf0\x9f\x90\xa6\n", [2, 3], frozenset({0, 1, 2}))
@example(b"prompt> ", [], frozenset({0}))
@example(b"prompt> answer\n", [8], frozenset({0}))
@example(b"prompt> \n", [8], frozenset({0}))
def test_any_pieces_of_any_bytes_give_the_lines_of_the_whole(
    data: bytes, places: list[int], flush_after: frozenset[int]
) -> None:
    pieces = feed(cut(data, places), flush_after)
    assert joined(pieces) == expected(data)
    assert all("\n" not in text for text, _ in pieces)
    if not flush_after:
        assert not any(partial for _, partial in pieces)


@pytest.mark.parametrize("char", "a\x80\u07ff\u0800\ufffd\uffff\U00010000\U0010ffff", ids=ascii)
def test_a_character_is_never_cut_by_a_prompt(char: str) -> None:
    data = char.encode()
    for place in range(len(data) + 1):
        pieces = feed([b"a" + data[:place], data[place:] + b"b"], frozenset({0}))
        assert joined(pieces) == [f"a{char}b"]


@st.composite
def long_lines(draw: st.DrawFn) -> bytes:
    """Some lines around the limit, of characters of one to four bytes."""
    lines = draw(
        st.lists(
            st.tuples(
                st.sampled_from([b"a", "é".encode(), "€".encode(), "🐦".encode(), b"\xff", b"\x80"]),
                st.sampled_from([0, 1, LINE_LIMIT - 1, LINE_LIMIT, LINE_LIMIT + 1, 2 * LINE_LIMIT + 1]),
                st.sampled_from([b"", b"x", b"xy", b"\xf0\x9f"]),
            ),
            min_size=1,
            max_size=3,
        )
    )
    data = b"\n".join(prefix + (unit * (size // len(unit) + 1))[:size] for unit, size, prefix in lines)
    return data + draw(st.sampled_from([b"", b"\n"]))


@given(long_lines(), st.sampled_from([7_001, 65_535, 65_536, 65_537, 1_000_000]), st.booleans())
def test_long_lines_are_split_and_nothing_of_them_is_lost(data: bytes, step: int, flush: bool) -> None:
    chunks = [data[start : start + step] for start in range(0, len(data), step)] or [b""]
    pieces = feed(chunks, frozenset(range(len(chunks))) if flush else frozenset())
    assert joined(pieces) == expected(data)
    # No part has more bytes than the limit; a byte that is none of UTF-8 counts as one.
    assert all(len(text.replace("\ufffd", "?").encode()) <= LINE_LIMIT for text, _ in pieces)


@pytest.mark.parametrize("size", [LINE_LIMIT - 1, LINE_LIMIT])
@pytest.mark.parametrize("step", [1000, 65_536, 1 << 20])
def test_a_line_of_the_limit_is_one(size: int, step: int) -> None:
    data = b"x" * size + b"\ny\n"
    assert feed([data[start : start + step] for start in range(0, len(data), step)]) == [
        ("x" * size, False),
        ("y", False),
    ]


@pytest.mark.parametrize("step", [1000, 65_536, 1 << 20])
def test_a_line_over_the_limit_is_several(step: int) -> None:
    data = b"x" * (LINE_LIMIT + 1) + b"\ny\n"
    pieces = feed([data[start : start + step] for start in range(0, len(data), step)])
    assert [partial for _, partial in pieces] == [True, False, False]
    assert len(pieces[0][0]) == LINE_LIMIT


def test_an_endless_line_does_not_gather() -> None:
    splitter = LineSplitter()
    said = 0
    for _ in range(100):
        pieces = splitter.feed(b"x" * 50_000)
        assert all(partial for _, partial in pieces)
        said += sum(len(text) for text, _ in pieces)
    assert 100 * 50_000 - said <= LINE_LIMIT
    assert joined([("x" * said, True), *splitter.finish()]) == ["x" * 5_000_000]


# ── prompts ──


def test_a_prompt_is_said_as_it_is_and_its_line_goes_on() -> None:
    splitter = LineSplitter()
    unfinished = [splitter.unfinished]
    assert splitter.feed(b"one\nname? ") == [("one", False)]
    unfinished.append(splitter.unfinished)
    assert splitter.flush() == [("name? ", True)]
    unfinished.append(splitter.unfinished)
    assert unfinished == [False, True, False]
    assert splitter.flush() == []
    assert splitter.feed(b"sparrow\n") == [("sparrow", False)]
    assert splitter.finish() == []


def test_a_prompt_waits_for_the_rest_of_a_character() -> None:
    splitter = LineSplitter()
    splitter.feed("né".encode()[:2])
    assert splitter.flush() == [("n", True)]
    assert splitter.flush() == []
    splitter.feed("é".encode()[1:])
    assert splitter.flush() == [("é", True)]
    assert splitter.finish() == [("", False)]
    assert splitter.finish() == []


def test_lines_of_the_limit_and_over_it_at_once() -> None:
    limit, over = "x" * LINE_LIMIT, "y" * LINE_LIMIT
    pieces = LineSplitter().feed(f"{limit}\n{over}y\n{limit}\n".encode())
    assert pieces == [(limit, False), (over, True), ("y", False), (limit, False)]


@pytest.mark.parametrize(
    ("data", "last"), [(b"", []), (b"x", [("x", False)]), (b"x\n", []), (b"\n", []), (b"x\n\xc3", [("\ufffd", False)])]
)
def test_the_end_of_a_stream(data: bytes, last: list[Piece]) -> None:
    splitter = LineSplitter()
    splitter.feed(data)
    assert splitter.finish() == last
    assert splitter.finish() == []


def test_empty_lines_are_lines() -> None:
    assert feed([b"\n\n", b"\n"]) == [("", False)] * 3
