from __future__ import annotations

from actors.outage import STUCK_S, Outage, is_outage
from specs.errors import DuologueError, InputError
from specs.parts import storage_error


def test_a_write_that_neither_succeeds_nor_fails_is_told() -> None:
    now = [0.0]
    outage = Outage(100.0, lambda: now[0])
    assert outage.trying() == 100.0
    assert (outage.words, outage.seconds) == ("", 0.0)
    now[0] = STUCK_S
    assert (outage.words, outage.seconds) == ("the store does not answer", STUCK_S)
    outage.over()
    assert (outage.words, outage.seconds) == ("", 0.0)


def test_the_last_try_falls_on_the_end_and_a_success_begins_anew() -> None:
    now = [0.0]
    outage = Outage(4.0, lambda: now[0])

    def pauses() -> list[float]:
        found = []
        while (pause := outage.failed("full")) is not None:
            found.append(pause)
            now[0] += pause
        return found

    assert pauses() == [1.0, 2.0, 1.0]
    assert outage.seconds == 4.0
    outage.over()
    assert pauses() == [1.0, 2.0, 1.0]
    assert outage.count == 2  # each told once, however often it was tried


def test_only_what_the_store_does_may_pass() -> None:
    for number in (5, 28, 30):
        error = OSError(number, "injected")
        failure = storage_error(error, "/runs")
        failure.__cause__ = error
        assert is_outage(failure)
    assert is_outage(OSError("curlCode: 7, Couldn't connect to server"))
    assert not is_outage(InputError("has schema version 2"))
    assert not is_outage(DuologueError("another run has taken this one over"))
    assert not is_outage(ValueError("no such column"))
