from __future__ import annotations

import errno
import sys
import time
import tracemalloc
from pathlib import Path

import pytest

from actors.sink import SinkCore, SinkLimits
from cluster.ledger import Caps, LedgerCore, Progress
from cluster.ledger_actor import LedgerActor
from specs.errors import Unavailable
from specs.lease import Lease
from specs.parts import Folder
from tests.unit.durable_samples import faulty_folder, make_dialogue


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def ledger(
    wanted: int, durable: tuple[int, ...] = (), caps: Caps | None = None, seats: int = 0
) -> tuple[LedgerCore, Clock]:
    clock = Clock()
    core = LedgerCore(wanted, durable, clock=clock, lease_s=10, caps=caps, seats=seats)
    return core, clock


def leased(core: LedgerCore, walker: str, want: int) -> list[Lease]:
    leases = core.lease(walker, want)
    assert leases is not None
    return leases


def indices(leases: list[Lease]) -> list[int]:
    return [lease.index for lease in leases]


def test_the_lowest_owed_go_first_and_durable_ones_never() -> None:
    core, _ = ledger(6, durable=(0, 3, 99))
    assert indices(leased(core, "a", 2)) == [1, 2]
    assert indices(leased(core, "b", 9)) == [4, 5]
    assert leased(core, "b", 9) == []
    assert core.release("a", lost=False) == 2
    assert indices(leased(core, "b", 1)) == [1]


def test_a_lease_that_is_not_renewed_comes_back_with_a_higher_epoch() -> None:
    core, clock = ledger(1)
    (first,) = leased(core, "a", 1)
    clock.now += 9
    assert core.renew("a", [first]) == []
    clock.now += 9
    assert leased(core, "b", 1) == []
    clock.now += 2
    (second,) = leased(core, "b", 1)
    assert (first.attempt, second.attempt) == (1, 2)
    assert second.epoch > first.epoch
    assert core.renew("a", [first]) == [first]
    assert core.failed(0, first.epoch, "late") is False
    assert core.done(0, first.epoch) is True  # durable is durable
    assert core.done(0, second.epoch) is False
    assert core.renew("b", [second]) == [second]
    assert core.progress().complete


def test_a_walker_that_leased_an_index_again_loses_its_older_lease() -> None:
    core, clock = ledger(1)
    (first,) = leased(core, "a", 1)
    clock.now += 11
    (second,) = leased(core, "a", 1)
    assert core.renew("a", [first, second]) == [first]


def test_attempts_count_on_where_a_failed_dialogue_stopped_and_are_capped_anew() -> None:
    core = LedgerCore(2, caps=Caps(losses=2), attempts={0: 3})
    for attempt in (4, 5):
        lease = leased(core, "a", 1)[0]
        assert (lease.index, lease.attempt) == (0, attempt)
        core.failed(0, lease.epoch, "engine gone")
    assert core.given_up() == {0: "engine gone"}
    assert leased(core, "a", 1)[0].attempt == 1


def test_attempts_are_capped_and_the_reason_is_kept() -> None:
    core, _ = ledger(2, caps=Caps(failures=2, losses=3))
    for _ in range(3):
        lease = leased(core, "a", 1)[0]
        assert lease.index == 0
        assert core.failed(0, lease.epoch, "engine gone", "nobody")
    for number in range(1, 4):
        lease = leased(core, "a", 1)[0]
        assert (lease.index, lease.attempt) == (0, number)
        assert core.failed(0, lease.epoch, "engine gone")
    assert core.given_up() == {0: "engine gone"}
    assert indices(leased(core, "a", 2)) == [1]
    assert not core.progress().complete
    core.done(1, 9)
    assert core.progress().complete
    assert core.done(0, 1)  # it got there all the same
    assert core.given_up() == {}


def test_the_last_attempt_of_a_dialogue_is_marked() -> None:
    core, _ = ledger(1, caps=Caps(failures=2, losses=9))
    first = leased(core, "a", 1)[0]
    core.release("a")
    second = leased(core, "a", 1)[0]
    core.failed(0, second.epoch, "no words", "dialogue")
    third = leased(core, "a", 1)[0]
    assert [lease.last for lease in (first, second, third)] == [False, False, True]
    assert [lease.attempt for lease in (first, second, third)] == [1, 2, 3]


def test_a_ledger_that_comes_back_waits_for_every_walker_or_for_their_leases_to_end() -> None:
    core, clock = ledger(6, seats=2)
    assert core.lease("w-0.1", 1) is None
    assert core.renew("w-0.1", [Lease(1, 7, 1)]) == []
    assert core.lease("w-0.1", 1) == []
    assert core.lease("w-1.1", 1) is None
    core.release("w-1.1")  # it is dead, and has no more to tell
    assert indices(leased(core, "w-0.1", 9)) == [0, 2, 3, 4, 5]

    core, clock = ledger(6, seats=2)
    core.renew("w-0.1", [])
    clock.now += 9
    assert core.lease("w-0.1", 1) == []
    clock.now += 2
    assert indices(leased(core, "w-0.1", 1)) == [0]
    assert core.lease("w-1.1", 1) is None  # late, but not unheard


def test_a_ledger_whose_epochs_lie_behind_the_sinks_catches_up() -> None:
    core, _ = ledger(1)
    (lease,) = leased(core, "a", 1)
    assert core.superseded(0, lease.epoch, seen=500)
    (again,) = leased(core, "a", 1)
    assert (again.epoch, again.attempt) == (501, 1)
    assert not core.superseded(0, lease.epoch, seen=500)
    assert core.progress().leased == 1


def test_leaving_in_good_order_costs_no_attempt() -> None:
    core, _ = ledger(1, caps=Caps(losses=1))
    for _ in range(5):
        assert leased(core, "a", 1)[0].attempt == 1
        core.release("a", lost=False)
    leased(core, "a", 1)
    core.release("a")
    assert core.given_up() == {0: "its walker died"}


def test_a_restarted_ledger_takes_over_the_leases_that_walkers_hold() -> None:
    core, _ = ledger(4, durable=(0,))
    leases = [Lease(0, 7, 1), Lease(1, 7, 1), Lease(9, 7, 1)]
    assert core.renew("a", leases) == [leases[0], leases[2]]
    older = [Lease(1, 5, 1)]
    assert core.renew("b", older) == older
    (next_,) = leased(core, "b", 1)
    assert (next_.index, next_.epoch) == (2, 8)


def test_an_index_that_was_taken_back_and_renewed_is_not_leased_twice() -> None:
    core, _ = ledger(1)
    leases = leased(core, "a", 1)
    core.release("a")
    assert core.renew("a", leases) == []  # it lived after all
    assert leased(core, "b", 1) == []
    assert core.renew("a", leases) == []


def test_a_million_wanted_cost_little() -> None:
    tracemalloc.start()
    core, _ = ledger(1_000_000, durable=tuple(range(0, 1_000_000, 1000)))
    leases = leased(core, "a", 5000)
    for lease in leases:
        core.done(lease.index, lease.epoch)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50e6
    assert core.progress().owed == 1_000_000 - 1000 - 5000
    assert sys.getsizeof(core._done._bits) < 300_000


async def test_an_actor_that_comes_back_owes_what_is_not_on_disk(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    core = SinkCore(folder, 0, 1, SinkLimits(), "t")
    core.open()
    far = time.time_ns()  # a clock that went ahead, and was set back since
    for index in (0, 1, 3):
        core.finish(make_dialogue(index, turns=2), far)
    batch = core.take_log()
    assert batch is not None
    core.log_written(batch, core.write_batch(batch))
    part = core.take_part()
    assert part is not None
    core.write_rows(part)
    core.finish(make_dialogue(4, turns=2), far + 1)
    batch = core.take_log()
    assert batch is not None
    core.write_batch(batch)

    first = LedgerActor(folder, 7, 1)
    assert await first.open() == Progress(7, done=4, leased=0, owed=3, given_up=0, returned=0)
    leases = await first.lease("w-0.1", 1, 1)
    assert leases is not None
    (lease,) = leases
    assert (lease.index, lease.epoch) == (2, far + 2)
    assert await first.lease("w-0.1", 1, 1) == [lease]  # the same question

    again = LedgerActor(folder, 7, 1)
    assert await again.lease("w-0.1", 1, 2) is None
    assert await again.renew("w-0.1", [lease]) == []
    assert indices(await again.lease("w-0.1", 9, 3) or []) == [5, 6]


async def test_a_question_that_comes_late_takes_no_lease(tmp_path: Path) -> None:
    """The walker has asked again meanwhile, so that nobody would play what this one leased."""
    actor = LedgerActor(Folder.of(tmp_path), 3, 1)
    await actor.open()
    await actor.lease("w-0.1", 1, 1)
    await actor.lease("w-0.1", 1, 2)
    await actor.lease("w-0.1", 1, 1)
    assert (await actor.progress()).leased == 2


async def test_a_ledger_that_comes_back_into_an_outage_waits_for_its_end(tmp_path: Path) -> None:
    core = SinkCore(Folder.of(tmp_path), 0, 1, SinkLimits(), "t")
    core.open()
    core.finish(make_dialogue(0, turns=2), 1)
    batch = core.take_log()
    assert batch is not None
    core.write_batch(batch)
    away = True

    def fault(step: str, path: str) -> None:
        if away and step == "read":
            raise OSError(errno.EIO, "injected")

    actor = LedgerActor(faulty_folder(tmp_path, fault), 2, 0)
    with pytest.raises(Unavailable, match=r"cannot read what is durable.*injected"):
        await actor.progress()
    away = False
    assert (await actor.progress()).done == 1
