from __future__ import annotations

import sys
import tempfile
import tracemalloc
from collections import Counter

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from actors.sink import SinkCore, SinkLimits
from cluster.ledger import LedgerActor, LedgerCore
from specs.lease import Lease
from specs.parts import Folder, read_dialogues
from tests.unit.durable_samples import make_dialogue


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def ledger(
    wanted: int, durable: tuple[int, ...] = (), attempts: int = 3
) -> tuple[LedgerCore, Clock]:
    clock = Clock()
    return LedgerCore(wanted, durable, clock=clock, lease_s=10, max_attempts=attempts), clock


def indices(leases: list[Lease]) -> list[int]:
    return [lease.index for lease in leases]


def test_the_lowest_owed_go_first_and_durable_ones_never() -> None:
    core, _ = ledger(6, durable=(0, 3, 99))
    assert indices(core.lease("a", 2)) == [1, 2]
    assert indices(core.lease("b", 9)) == [4, 5]
    assert core.lease("b", 9) == []
    assert core.release("a", counted=False) == 2
    assert indices(core.lease("b", 1)) == [1]


def test_a_lease_that_is_not_renewed_comes_back_with_a_higher_epoch() -> None:
    core, clock = ledger(1)
    (first,) = core.lease("a", 1)
    clock.now += 9
    assert core.renew("a", [first]) == []
    clock.now += 9
    assert core.lease("b", 1) == []
    clock.now += 2
    (second,) = core.lease("b", 1)
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
    (first,) = core.lease("a", 1)
    clock.now += 11
    (second,) = core.lease("a", 1)
    assert core.renew("a", [first, second]) == [first]


def test_attempts_count_on_where_a_failed_dialogue_stopped_and_are_capped_anew() -> None:
    core = LedgerCore(2, max_attempts=2, attempts={0: 3})
    for attempt in (4, 5):
        lease = core.lease("a", 1)[0]
        assert (lease.index, lease.attempt) == (0, attempt)
        core.failed(0, lease.epoch, "engine gone")
    assert core.given_up() == {0: "engine gone"}
    assert core.lease("a", 1)[0].attempt == 1


def test_attempts_are_capped_and_the_reason_is_kept() -> None:
    core, _ = ledger(2, attempts=2)
    for _ in range(2):
        lease = core.lease("a", 1)[0]
        assert lease.index == 0
        assert core.failed(0, lease.epoch, "engine gone")
    assert core.given_up() == {0: "engine gone"}
    assert indices(core.lease("a", 2)) == [1]
    assert not core.progress().complete
    core.done(1, 9)
    assert core.progress().complete
    assert core.done(0, 1)  # it got there all the same
    assert core.given_up() == {}


def test_leaving_in_good_order_costs_no_attempt() -> None:
    core, _ = ledger(1, attempts=1)
    for _ in range(5):
        assert core.lease("a", 1)[0].attempt == 1
        core.release("a", counted=False)
    core.lease("a", 1)
    core.release("a")
    assert core.given_up() == {0: "its walker died"}


def test_a_restarted_ledger_takes_over_the_leases_that_walkers_hold() -> None:
    core, _ = ledger(4, durable=(0,))
    leases = [Lease(0, 7, 1), Lease(1, 7, 1), Lease(9, 7, 1)]
    assert core.renew("a", leases) == [leases[0], leases[2]]
    older = [Lease(1, 5, 1)]
    assert core.renew("b", older) == older
    (next_,) = core.lease("b", 1)
    assert (next_.index, next_.epoch) == (2, 8)


def test_an_index_that_was_taken_back_and_renewed_is_not_leased_twice() -> None:
    core, _ = ledger(1)
    leases = core.lease("a", 1)
    core.release("a")
    assert core.renew("a", leases) == []  # it lived after all
    assert core.lease("b", 1) == []
    assert core.renew("a", leases) == []


def test_a_million_wanted_cost_little() -> None:
    tracemalloc.start()
    core, _ = ledger(1_000_000, durable=tuple(range(0, 1_000_000, 1000)))
    leases = core.lease("a", 5000)
    for lease in leases:
        core.done(lease.index, lease.epoch)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50e6
    assert core.progress().owed == 1_000_000 - 1000 - 5000
    assert sys.getsizeof(core._done._bits) < 300_000


async def test_a_restarted_actor_gives_higher_epochs() -> None:
    first = (await LedgerActor(2).lease("a", 1))[0]
    assert first.epoch > 1_600_000_000_000
    core = LedgerActor(2, first_epoch=first.epoch + 10**6)
    assert (await core.lease("a", 1))[0].epoch > first.epoch
    assert not (await core.progress()).complete


WANTED, SINKS = 7, 2


class Run(RuleBasedStateMachine):
    """Walkers, a ledger and sinks that die at any time: each wanted index becomes one row."""

    def __init__(self) -> None:
        super().__init__()
        self.place = tempfile.TemporaryDirectory()
        self.clock = Clock()
        self.epochs = 1
        self.ledger = self.new_ledger(())
        self.held: dict[str, dict[int, Lease]] = {"a": {}, "b": {}}
        self.leased: set[tuple[int, int]] = set()
        self.sinks = [self.new_sink(number) for number in range(SINKS)]

    def teardown(self) -> None:
        self.finish_the_run()
        self.place.cleanup()

    def new_ledger(self, durable: tuple[int, ...]) -> LedgerCore:
        self.epochs += 1000
        return LedgerCore(
            WANTED, durable, clock=self.clock, lease_s=10, max_attempts=99, first_epoch=self.epochs
        )

    def new_sink(self, number: int) -> SinkCore:
        token = f"t{self.epochs}-{self.clock.now}-{number}"
        self.epochs += 1
        core = SinkCore(Folder.of(self.place.name), number, SINKS, SinkLimits(), token)
        core.open()
        return core

    def log(self, core: SinkCore) -> None:
        batch = core.take_log()
        if batch:
            core.log_written(batch, core.write_batch(batch))

    @rule(walker=st.sampled_from("ab"), want=st.integers(1, 4))
    def lease(self, walker: str, want: int) -> None:
        for lease in self.ledger.lease(walker, want):
            assert (lease.index, lease.epoch) not in self.leased
            self.leased.add((lease.index, lease.epoch))
            self.held[walker][lease.index] = lease

    @rule(walker=st.sampled_from("ab"), data=st.data())
    def play(self, walker: str, data: st.DataObject) -> None:
        if not self.held[walker]:
            return
        index = data.draw(st.sampled_from(sorted(self.held[walker])))
        lease = self.held[walker].pop(index)
        core = self.sinks[index % SINKS]
        stored = core.finish(make_dialogue(index, turns=2), lease.epoch)
        if stored != "stale":
            self.log(core)
            self.ledger.done(index, lease.epoch)

    @rule(number=st.integers(0, SINKS - 1))
    def cut(self, number: int) -> None:
        core = self.sinks[number]
        self.log(core)
        part = core.take_part()
        if part:
            core.write_rows(part)
            core.delete_logs(core.part_written(part))

    @rule(number=st.integers(0, SINKS - 1), data=st.data())
    def sink_dies_unheard(self, number: int, data: st.DataObject) -> None:
        """It has written, and neither it nor the ledger hears of it."""
        core = self.sinks[number]
        batch = core.take_log()
        if batch and data.draw(st.booleans()):
            core.write_batch(batch)
        part = core.take_part()
        if part and data.draw(st.booleans()):
            core.write_rows(part)
        self.sinks[number] = self.new_sink(number)

    @rule(seconds=st.integers(1, 20))
    def time_passes(self, seconds: int) -> None:
        self.clock.now += seconds

    @rule(walker=st.sampled_from("ab"))
    def walker_renews(self, walker: str) -> None:
        for lease in self.ledger.renew(walker, list(self.held[walker].values())):
            del self.held[walker][lease.index]

    @rule(walker=st.sampled_from("ab"), seen=st.booleans())
    def walker_dies(self, walker: str, seen: bool) -> None:
        self.held[walker].clear()
        if seen:
            self.ledger.release(walker)

    @rule()
    def ledger_dies(self) -> None:
        self.ledger = self.new_ledger(())
        for walker, held in self.held.items():
            for lease in self.ledger.renew(walker, list(held.values())):
                del held[lease.index]

    @invariant()
    def every_index_is_accounted_for(self) -> None:
        now = self.ledger.progress()
        assert now.done + now.leased + now.owed + now.given_up == WANTED
        assert now.owed >= 0

    def finish_the_run(self) -> None:
        self.clock.now += 100
        while not self.ledger.progress().complete:
            leases = self.ledger.lease("last", 3)
            assert leases, "an index was lost"
            for lease in leases:
                core = self.sinks[lease.index % SINKS]
                assert core.finish(make_dialogue(lease.index, turns=2), lease.epoch) != "stale"
                self.ledger.done(lease.index, lease.epoch)
        for number in range(SINKS):
            self.cut(number)
        found = read_dialogues(Folder.of(self.place.name).child("dialogues"), ["index"])
        assert Counter(dialogue.index for dialogue in found) == dict.fromkeys(range(WANTED), 1)


TestRun = Run.TestCase
TestRun.settings = settings(
    max_examples=40,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
