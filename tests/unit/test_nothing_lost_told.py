"""What chance meets now and then in `test_nothing_lost`, told each time.

Each story fails for a break of the code that the search may miss: a sink that takes what it has, or
an older lease; a ledger that does not wait for walkers; a log of which an end counts without its
turns, or goes too early.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.unit.test_nothing_lost import Run


def a_late_walker_hands_in_what_is_there(run: Run) -> None:
    run.a_walker_leases("a", 1)
    run.a_walker_dies("a", seen=True)
    run.a_walker_leases("b", 1)
    run.a_walker_plays_all_that_it_has("b")
    run.late_walkers_wake_up()


def a_late_walker_begins_what_is_there(run: Run) -> None:
    late = run.players["a"]
    (lease,) = run.ledger.lease(late.name, 1) or []
    run.a_walker_dies("a", seen=True)
    run.ledger.release(late.name)
    run.a_walker_leases("b", 1)
    run.a_walker_plays_all_that_it_has("b")
    run.begin(late, lease)
    assert not late.held


def a_late_walker_speaks_between(run: Run) -> None:
    run.a_walker_leases("a", 1)
    late = run.players["a"]
    run.a_walker_dies("a", seen=True)
    run.a_walker_leases("b", 1)
    run.speak(run.players["b"], 0)
    run.speak(late, 0)


def a_late_walker_meets_a_sink_that_forgot(run: Run) -> None:
    run.a_walker_leases("a", 1)
    late = run.players["a"]
    run.speak(late, 0)
    run.a_sink_writes_its_log(0)
    run.a_walker_dies("a", seen=True)
    run.a_walker_leases("b", 1)
    run.speak(run.players["b"], 0)
    run.a_sink_dies(0, log=False, part=False)
    run.speak(late, 0)
    run.a_walker_plays_all_that_it_has("b")


def a_ledger_comes_back_while_others_play(run: Run) -> None:
    run.a_walker_leases("a", 1)
    run.the_ledger_dies(back=0)
    run.a_walker_leases("b", 3)


def a_log_loses_turns_of_which_it_has_the_end(run: Run) -> None:
    run.a_walker_leases("a", 1)
    run.speak(run.players["a"], 0)
    run.a_sink_writes_its_log(0)
    run.a_walker_plays_all_that_it_has("a")
    run.cut_short(run.folder.child("log").names("log-")[0])
    run.everything_dies()


def a_part_is_cut_while_others_are_in_the_log(run: Run) -> None:
    run.a_walker_leases("a", 3)
    for index in (0, 2):  # of one sink
        run.speak(run.players["a"], index)
    run.a_sink_writes_its_log(0)
    run.what_was_durable_stays()
    while 0 in run.players["a"].held:
        run.speak(run.players["a"], 0)
    run.a_sink_cuts_a_part(0)


@pytest.mark.parametrize(
    "story",
    [
        a_late_walker_hands_in_what_is_there,
        a_late_walker_begins_what_is_there,
        a_late_walker_speaks_between,
        a_late_walker_meets_a_sink_that_forgot,
        a_ledger_comes_back_while_others_play,
        a_log_loses_turns_of_which_it_has_the_end,
        a_part_is_cut_while_others_are_in_the_log,
    ],
)
def test_what_chance_may_miss(story: Callable[[Run], None]) -> None:
    run = Run()
    story(run)
    run.every_index_is_accounted_for()
    run.what_was_durable_stays()
    run.teardown()
