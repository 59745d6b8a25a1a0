"""Which transcripts of ended runs are to go, the oldest first. It only chooses; nothing here touches a file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Kept(NamedTuple):
    """A transcript of a run that ended at ``ended`` (seconds since 1970), with its bytes on the disk."""

    run: str
    ended: float
    bytes: int = 0


class Keeping:
    """Goes through ended runs, the newest first, and says of each whether it stays. After the first that does not, none does."""

    def __init__(
        self, now: float, *, max_age: float | None = None, max_bytes: int | None = None, max_runs: int | None = None
    ) -> None:
        self._since = None if max_age is None else now - max_age
        self._bytes = max_bytes
        self._runs = max_runs
        self._full = False

    def keeps(self, one: Kept) -> bool:
        """Whether there is room for one more, which is older than those before it."""
        if self._bytes is not None:
            self._bytes -= one.bytes
        if self._runs is not None:
            self._runs -= 1
        too_old = self._since is not None and one.ended < self._since
        too_many = (self._bytes is not None and self._bytes < 0) or (self._runs is not None and self._runs < 0)
        self._full = self._full or too_old or too_many
        return not self._full


def outlived(
    kept: Iterable[Kept],
    now: float,
    *,
    max_age: float | None = None,
    max_bytes: int | None = None,
    max_runs: int | None = None,
) -> list[Kept]:
    """What exceeds a limit, oldest first: what ended more than ``max_age`` seconds ago, and as many more of the oldest as it
    takes for the rest to be ``max_runs`` with ``max_bytes`` at most. None is no limit.
    """
    keeping = Keeping(now, max_age=max_age, max_bytes=max_bytes, max_runs=max_runs)
    newest_first = sorted(kept, key=lambda one: (one.ended, one.run), reverse=True)
    return [one for one in newest_first if not keeping.keeps(one)][::-1]
