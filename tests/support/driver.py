"""A program of a user's that goes on submitting runs whatever becomes of the supervisor: `python driver.py COUNT SEED`.

One line of JSON for each accepted run: [id, how it will end]. It paces itself by the lines that it is sent: each is a ticket
for so many runs.
"""

from __future__ import annotations

import json
import random
import sys

from sparrow_mp import Client

# Who kills its monitor while no zygote is there dies with it, but what it has started does not (docs/reliability.md):
# hence `exec`, or a `sleep` would be left there.
COMMAND = (
    "echo ran >> ran-$0; sleep 0.0$2; case $1 in k) kill -9 $$;; m) kill -9 $PPID; exec sleep 10;; *) exit $1;; esac"
)


def main(count: int, seed: int) -> None:
    """Submit ``count`` runs that end in every way."""
    chance = random.Random(seed)
    with Client() as sparrow:
        done = 0
        for ticket in sys.stdin:
            for _ in range(min(int(ticket), count - done)):
                how = chance.choice(["0", "0", "7", "k", "m"])
                argv = ["sh", "-c", COMMAND, f"{seed}-{done}", how, str(done % 10)]
                print(json.dumps([sparrow.submit(argv=argv).id, how]), flush=True)
                done += 1


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
