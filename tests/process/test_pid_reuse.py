"""L3: who gets the number of a process that was just to be signalled is not touched."""

from __future__ import annotations

from tests.support.pid_namespace import needs_namespaces, reuse_pids

pytestmark = needs_namespaces


def test_who_gets_the_number_of_a_process_is_not_taken_for_it() -> None:
    assert reuse_pids(10) == {"trials": 10, "given away": 10, "untouched": 10}
