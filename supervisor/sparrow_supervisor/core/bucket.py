"""How often each client may submit: a bucket of tokens for each, which fills again with time."""

from __future__ import annotations

_MANY = 1000


class Buckets:
    """Moments are monotonic seconds."""

    def __init__(self) -> None:
        self._left: dict[str, tuple[float, float]] = {}
        """What was left to a client at a moment. Who is not in here has a full bucket."""

    def take(self, client: str, now: float, rate: float, burst: float) -> float:
        """Take one of at most ``burst`` tokens, of which there are ``rate`` more each second (0: any number).

        Gives 0 where there was one, else after how many seconds there will be.
        """
        if rate <= 0:
            return 0.0
        left = self._filled(client, now, rate, burst)
        if left < 1:
            return (1 - left) / rate
        self._left[client] = (left - 1, now)
        if len(self._left) > _MANY:
            self._left = {
                name: used for name, used in self._left.items() if self._filled(name, now, rate, burst) < burst
            }
        return 0.0

    def _filled(self, client: str, now: float, rate: float, burst: float) -> float:
        left, since = self._left.get(client, (burst, now))
        return min(burst, left + (now - since) * rate)
