"""What a client's first bytes say of it: a request, a browser, or neither. Pure.

A browser lets any page send what it likes to a port of this machine, but always as HTTP (or TLS, where the address says
https): the method leads, and nothing that a page controls comes before it. A request is a JSON object, so the first
character decides, before a line is whole.
"""

from __future__ import annotations

import re
from typing import Literal

Verdict = Literal["wait", "request", "http", "bad"]

_METHODS = (
    b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH", b"PRI",
    b"PROPFIND", b"PROPPATCH", b"MKCOL", b"COPY", b"MOVE", b"LOCK", b"UNLOCK", b"SEARCH", b"REPORT",
)  # fmt: skip
_TLS = (b"\x16", b"\x80")
_HTTP_LINE = re.compile(rb"[^\r\n]* HTTP/\d")
_TOKEN = re.compile(rb"[A-Za-z!#$%&'*+.^_`|~-]+( [^\r\n]*)?")
_LONGEST_DOUBT = 512


def judge(data: bytes) -> Verdict:
    """What the beginning of a line is: ``wait`` where that cannot be told yet."""
    start = data.lstrip(b" \t")
    if start.startswith(b"{"):
        return "request"
    if start.startswith(_TLS) or _HTTP_LINE.match(start):
        return "http"
    word, space, _ = start.rstrip(b"\r\n").partition(b" ")
    if word in _METHODS or (word and not space and any(method.startswith(word) for method in _METHODS)):
        return "http"  # or the first letters of a method: no request begins so either
    if not start or (len(start) < _LONGEST_DOUBT and _TOKEN.fullmatch(start)):
        return "wait"  # perhaps a method that is not in the list, and the version comes
    return "bad"
