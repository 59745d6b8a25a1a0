"""Records of runs, written the way the supervisor writes them: whole lines appended, sealed by renaming."""

import json
import os
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

T0 = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


def stamp(seconds: float) -> str:
    """A time so many seconds after T0, as events have it."""
    return (T0 + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Record:
    """One run's transcript, and what was written to it."""

    def __init__(self, transcripts: Path, run: str = "", clock: Callable[[int], str] = stamp) -> None:
        self.run = run or str(uuid.uuid4())
        self.clock = clock
        self.folder = transcripts / self.run
        self.folder.mkdir(parents=True)
        self.seq = 0
        self.begins = 1
        self.lines: list[bytes] = []

    @property
    def file(self) -> Path:
        return self.folder / "events.jsonl"

    def line(self, kind: str = "Message", ts: str | None = None, **fields: object) -> bytes:
        """The next event, encoded and not yet written. Without ``ts`` event n is at n seconds after T0, or as ``clock`` says."""
        self.seq += 1
        if kind == "Message":
            fields = {"role": "assistant", "text": f"{self.seq}", **fields}
        event = {"type": kind, "run": self.run, "seq": self.seq, "ts": ts or self.clock(self.seq), **fields}
        line = json.dumps(event, separators=(",", ":")).encode()
        self.lines.append(line)
        return line

    def write(self, data: bytes) -> None:
        fd = os.open(self.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(fd, data)
        os.close(fd)

    def add(self, kind: str = "Message", count: int = 1, ts: str | None = None, **fields: object) -> bytes:
        """Write events; the lines as they are published."""
        data = b"".join(self.line(kind, ts, **fields) + b"\n" for _ in range(count))
        self.write(data)
        return data

    def finish(self) -> bytes:
        return self.add("RunFinished", outcome={"status": "completed"})

    def seal(self) -> None:
        """What there is becomes a sealed part."""
        self.file.rename(self.folder / f"events.{self.begins}.jsonl")
        self.file.touch(0o600)
        self.begins = self.seq + 1
