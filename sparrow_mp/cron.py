"""When a cron line fires, in a time zone. Pure: moments come in and go out as seconds since 1970.

What a day with a change of the clocks does is what Debian's cron does: a line whose minute and hour are both fixed fires once
on such a day, where its time does not exist at the first moment that does; one with a ``*`` in front of either goes by the
time that really passes, so it may fire in an hour that comes twice, and does not in one that does not come.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo

from cronsim import CronSim, CronSimError

FIELDS = "minute hour day-of-month month day-of-week"
SHORT = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_CLOSE_S = 3600.0
_WEEK_S = 7 * 86400
"""No zone has changed its clocks twice within a week since 1970, so whoever looks once a week misses no change."""
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  what a clock on a wall shows has no zone
_SOME_DAY = datetime(2000, 1, 1, tzinfo=UTC)
_WINDOWS_S = tuple(hours * 3600.0 for hours in (1, 24, 32 * 24, 366 * 24, 9 * 366 * 24, 51 * 366 * 24))


_ONE_WITH_STEP = re.compile(r"(?<![\w-])(\w+)-\1/[1-9][0-9]*", re.IGNORECASE)
"""``2-2/4``, which cronsim takes for ``2/4``, that is 2, 6, 10 …"""


class CronError(ValueError):
    """No cron line; the message says what is wrong with it."""


class Cron:
    """One cron line in one zone."""

    def __init__(self, line: str, zone: tzinfo) -> None:
        """Raises CronError, also for a line that never fires."""
        self.line = line
        self._zone = zone
        self._plain = _plain(line)
        minute, hour = self._plain.split()[:2] if len(self._plain.split()) > 1 else ("", "")
        self._by_the_wall = not minute.startswith("*") and not hour.startswith("*")
        try:
            if next(CronSim(self._plain, _SOME_DAY), None) is None:
                raise CronError(f"the cron line `{line}` never fires: there is no such day")
        except CronSimError as error:
            raise CronError(_explained(line, self._plain, str(error))) from None
        except CronError:
            raise
        except ValueError:
            raise CronError("the cron line has a number that is too long") from None

    def after(self, moment: float) -> float | None:
        """The first moment after this one at which it fires; None where that is further away than 50 years."""
        if not self._by_the_wall:
            return self._after_in_passing(int(moment // 1))
        for found in CronSim(self._plain, datetime.fromtimestamp(moment // 1, UTC).astimezone(self._zone)):
            due = found.timestamp()
            if due > moment:  # moments of an hour that is left out, or comes twice, may come several times
                return due
        return None

    def _after_in_passing(self, moment: int) -> float | None:
        """The same for a line that goes by the time that passes: from one change of the clocks to the next a clock on the wall
        goes evenly, so that what it shows can be reckoned with. (With a zone, cronsim does not come out of an hour that comes
        twice where the clocks are set back at another time than on the hour.)
        """
        last = moment + int(_WINDOWS_S[-1])
        offset = self._offset(moment)
        while moment < last:
            shown = _EPOCH + timedelta(seconds=moment + offset)
            wanted = next(CronSim(self._plain, shown), None)
            if wanted is None:
                return None
            due = moment + int((wanted - shown).total_seconds())
            change = self._change(moment + 1, due, offset)
            if change is None:
                return float(due)
            moment, offset = change - 1, self._offset(change)
        return None

    def _offset(self, moment: int) -> int:
        """How far the zone's clocks are before UTC, in seconds."""
        offset = datetime.fromtimestamp(moment, self._zone).utcoffset()
        return 0 if offset is None else int(offset.total_seconds())

    def _change(self, begin: int, end: int, offset: int) -> int | None:
        """The first second from ``begin`` to ``end`` at which the clocks are not before UTC by ``offset``."""
        if self._offset(begin) != offset:
            return begin
        while begin < end:
            ahead = min(begin + _WEEK_S, end)
            if self._offset(ahead) != offset:
                while ahead - begin > 1:
                    middle = (begin + ahead) // 2
                    if self._offset(middle) == offset:
                        begin = middle
                    else:
                        ahead = middle
                return ahead
            begin = ahead
        return None

    def latest(self, moment: float) -> float | None:
        """The last moment at or before this one at which it fires; None where that is further away than 50 years."""
        for window in _WINDOWS_S:
            due = self.after(moment - window)
            if due is None or due > moment:
                continue
            return self._last_between(due, moment)
        return None

    def _last_between(self, due: float, moment: float) -> float:
        """The last moment from ``due`` on, which is one, to this one: by halves, since there may be half a million."""
        none_from = moment
        while none_from - due > _CLOSE_S:
            middle = (due + none_from) / 2
            found = self.after(middle)
            if found is not None and found <= moment:
                due = found
            else:
                none_from = middle
        while (further := self.after(due)) is not None and further <= moment:
            due = further
        return due


def _plain(line: str) -> str:
    """The line as five fields. Raises CronError."""
    text = line.strip()
    if text.startswith("@"):
        if text.lower() not in SHORT:
            raise CronError(
                f"the cron line `{line}` is unknown; there are {', '.join(SHORT)}, and five fields: {FIELDS}"
            )
        return SHORT[text.lower()]
    count = len(text.split())
    if count != 5:
        raise CronError(f"the cron line `{line}` has {count} fields, not five: {FIELDS}")
    return _ONE_WITH_STEP.sub(r"\1", text)


def _explained(line: str, plain: str, fault: str) -> str:
    """cronsim's words in ours."""
    name = fault.removeprefix("Bad ")
    names = FIELDS.split()
    if name not in names:
        return f"the cron line `{line}` cannot be read: {fault}"
    field = plain.split()[names.index(name)]
    if name == "day-of-month" and _valid_days(field):
        return f"the cron line `{line}` never fires: none of its months has such a day"
    return f"the cron line `{line}`: `{field}` is no {name}; the fields are {FIELDS}"


def _valid_days(field: str) -> bool:
    """Whether a day-of-month is one, in some month."""
    try:
        CronSim(f"0 0 {field} 1 *", _SOME_DAY)
    except CronSimError:
        return False
    return True
