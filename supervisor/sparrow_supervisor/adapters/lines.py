"""Which lines of a record a client gets: by type, never what is not public, and from a time on. Bytes in, bytes out."""

from __future__ import annotations

import msgspec

from sparrow_mp.events import EVENT_TYPES, decode_header, is_public_type

_HIDDEN = tuple(name.encode() for name in EVENT_TYPES if not is_public_type(name))
_CANONICAL = b'{"type":"'


def choose(data: bytes, types: frozenset[bytes] | None, floor: str = "") -> bytes:
    """The public ones of whole lines: those of ``types`` (None: of all), not earlier than ``floor`` where it is given."""
    if types is None and not floor and b"\\u" not in data and not any(name in data for name in _HIDDEN):
        return data  # nearly always: nothing was looked at line by line
    kept = [line for line in data.split(b"\n") if line and _chosen(line, types, floor)]
    return b"\n".join(kept) + b"\n" if kept else b""


def _chosen(line: bytes, types: frozenset[bytes] | None, floor: str) -> bool:
    name = _type(line)
    if name in _HIDDEN or not name or (types is not None and name not in types):
        return False
    return not floor or decode_header(line).ts >= floor


def _type(line: bytes) -> bytes:
    """The type of an event; empty where the line is none, and then nobody gets it: nobody can say that it is public.

    The type leads the line as our writers write it. Anything else (an escape in the name, a hidden name anywhere in the
    line, since of a repeated key the last one counts) is decoded: what is not public must not get out by being odd.
    """
    if line.startswith(_CANONICAL):
        name = line[len(_CANONICAL) : line.find(b'"', len(_CANONICAL))]
        if b"\\" not in name and not any(hidden in line for hidden in _HIDDEN):
            return name
    try:
        return decode_header(line).type.encode()
    except (msgspec.DecodeError, UnicodeError):
        return b""
