"""What tells the zygotes of different sparrows apart."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import sparrow_mp
from sparrow_mp import __version__

UNIT = "unit-"
"""How the fingerprint of a zygote that systemd started begins: it is not to be mixed up with one that a supervisor started."""


def fingerprint(*, unit: bool = False) -> str:
    """What a zygote started here would be: the same for the same version, interpreter and place of sparrow."""
    kind = "\0".join([__version__, sys.executable, str(Path(sparrow_mp.__file__).parent)])
    return (UNIT if unit else "") + hashlib.blake2s(kind.encode(), digest_size=4).hexdigest()
