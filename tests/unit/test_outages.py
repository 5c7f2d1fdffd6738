from __future__ import annotations

from cluster.outages import OVERDUE, REMIND_S, Deadlines, Outages, Silences, Standstill
from specs.engine import EngineStats


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


def test_an_outage_is_said_when_it_begins_now_and_then_and_when_it_is_over() -> None:
    clock = Clock()
    outages = Outages(clock)
    assert outages.see({}) == []
    assert outages.see({"sink-0": "the disk is full"}) == [
        "sink-0 is away: the disk is full; what needs it waits"
    ]
    clock.now += REMIND_S - 1
    assert outages.see({"sink-0": "the disk is full"}) == []
    clock.now += 1
    assert outages.see({"sink-0": "it does not answer"}) == [
        "sink-0 has been away for 60 s: it does not answer"
    ]
    clock.now += 3
    assert outages.see({"ledger": "it does not answer"}) == [
        "sink-0 is back after 63 s",
        "ledger is away: it does not answer; what needs it waits",
    ]


def test_what_is_silent_for_too_long_is_told_once_each_time() -> None:
    clock = Clock()
    silences = Silences(clock)
    assert silences.too_long({"user-0": 20, "sink-0": 5}) == []
    clock.now += 5
    assert silences.too_long({"user-0": 20, "sink-0": 5}) == ["sink-0"]
    clock.now += 4
    assert silences.too_long({"user-0": 20, "sink-0": 5}) == []  # it is coming up again
    assert silences.too_long({"sink-0": 5}) == []
    clock.now += 19
    assert silences.too_long({"user-0": 20}) == []  # it answered in between


def test_a_standstill_lasts_as_long_as_nothing_changes() -> None:
    clock = Clock()
    standstill = Standstill(clock)
    assert standstill.lasts(3, 1) == 0
    clock.now += 20
    assert standstill.lasts(3, 1) == 20
    assert standstill.lasts(3, 2) == 0
    clock.now += 5
    assert standstill.lasts(3, 2) == 5
    assert standstill.lasts(3, None) == 5  # a ledger that does not answer now and then
    clock.now += 5
    assert standstill.lasts(3, 2) == 10
    assert standstill.lasts(4, None) == 0


def test_an_engine_that_is_too_slow_for_its_deadline_is_told_once() -> None:
    deadlines = Deadlines({"writer": 120.0, "other": 60.0})
    fine = EngineStats(finished=1000, failed=OVERDUE, overdue=OVERDUE)
    few = EngineStats(failed=OVERDUE - 1, overdue=OVERDUE - 1)
    broken = EngineStats(failed=50)
    for stats in (fine, few, broken):
        assert deadlines.missed({"writer": {"a": stats}}) == []
    slow = EngineStats(finished=61, failed=28, overdue=14)
    said = deadlines.missed({"writer": {"a": slow, "b": slow}, "other": {"a": broken}})
    assert said == [
        "warning: writer is slow: 28 of 178 requests were given up after 120 s, with all that was "
        "written for them, and are asked again; give them longer (engines.writer.turn_deadline_s), "
        "or let it write fewer at once (engines.writer.max_running)"
    ]
    assert deadlines.missed({"writer": {"a": slow, "b": slow}}) == []
    assert len(deadlines.missed({"writer": {"a": slow}, "other": {"a": slow}})) == 1
