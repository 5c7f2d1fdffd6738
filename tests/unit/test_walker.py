"""Walkers: always full while something is owed, and nothing lost when something fails."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from actors.playing_time import PlayingTime, Timed
from actors.walker import Walker, WalkerStats
from cluster.ledger import Caps, LedgerCore
from specs.engine import Answer, Failure, Request
from specs.errors import EngineError, Superseded, Unavailable
from specs.lease import Blame, Lease
from specs.plan import PlanSource, make_plan
from specs.records import Dialogue, StopReason, Turn
from tests.unit.kiosk import kiosk
from tests.unit.scripted import Scripted, make_cast, place
from tests.unit.tiny_domain import changed, tiny


@dataclass
class Ledger:
    """The real ledger's decisions, without Ray."""

    wanted: int
    core: LedgerCore = field(init=False)
    released: list[str] = field(default_factory=list)
    failures: list[tuple[int, str]] = field(default_factory=list)
    blamed: list[Blame] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.core = LedgerCore(self.wanted, clock=lambda: 0.0)

    async def lease(self, walker: str, want: int) -> Sequence[Lease] | None:
        return self.core.lease(walker, want)

    async def renew(self, walker: str, leases: Sequence[Lease]) -> Sequence[Lease]:
        return self.core.renew(walker, leases)

    async def done(self, index: int, epoch: int) -> None:
        self.core.done(index, epoch)

    async def failed(self, index: int, epoch: int, reason: str, blame: Blame) -> None:
        self.failures.append((index, reason))
        self.blamed.append(blame)
        self.core.failed(index, epoch, reason, blame)

    async def superseded(self, index: int, epoch: int, seen: int) -> None:
        self.core.superseded(index, epoch, seen)

    async def release(self, walker: str) -> None:
        self.released.append(walker)
        self.core.release(walker, lost=False)

    async def complete(self) -> bool:
        return self.core.progress().complete


@dataclass
class Sinks:
    """Keeps what it is given."""

    begun: list[int] = field(default_factory=list)
    finished: list[Dialogue] = field(default_factory=list)
    log: dict[int, list[Turn]] = field(default_factory=dict)
    known: set[int] = field(default_factory=set)

    async def begin(self, index: int, walk_id: str, epoch: int) -> Sequence[Turn] | None:
        self.begun.append(index)
        return None if index in self.known else list(self.log.get(index, []))

    async def turn(self, index: int, walk_id: str, epoch: int, turn: Turn) -> None:
        self.log.setdefault(index, []).append(turn)

    async def finish(self, dialogue: Dialogue, epoch: int) -> None:
        self.finished.append(dialogue)


class Paced:
    """A client whose answers wait until the test lets them go."""

    def __init__(self) -> None:
        self.scripted = Scripted()
        self.waiting: dict[str, Request] = {}
        self._gates: dict[str, asyncio.Event] = {}

    async def ask(self, request: Request, dialogue: str) -> Answer:
        self.waiting[dialogue] = request
        self._gates[dialogue] = asyncio.Event()
        try:
            await self._gates[dialogue].wait()
        finally:
            del self.waiting[dialogue]
        return await self.scripted.ask(request, dialogue)

    def release(self, dialogue: str) -> None:
        self.scripted.release(dialogue)

    def let_go(self, dialogue: str) -> None:
        self._gates[dialogue].set()


def walker_of(client: Any, ledger: Ledger, sinks: Sinks, alive: int, **keys: Any) -> Walker:
    playing = keys.pop("playing", None)
    cast = make_cast(kiosk(), client, **keys)
    return Walker("w", cast, ledger, sinks, alive, playing=playing)


async def bounded(work: Any) -> Any:
    """Await something; a walker that hangs fails its test."""
    return await asyncio.wait_for(work, 60)


async def test_every_wanted_dialogue_is_stored_once_and_counted() -> None:
    ledger, sinks = Ledger(23), Sinks()
    stats: WalkerStats = await bounded(walker_of(Scripted(), ledger, sinks, 4).run())
    assert Counter(dialogue.index for dialogue in sinks.finished) == dict.fromkeys(range(23), 1)
    assert ledger.core.progress().complete
    assert (stats.dialogues, stats.ended, stats.alive) == (23, 23, 0)
    assert stats.turns == sum(len(dialogue.turns) for dialogue in sinks.finished)
    assert stats.completion_tokens == 7 * stats.turns
    assert stats.said.total() == sum(laps.summed().turns for laps in stats.laps.values())
    assert stats.said["user", "model"] == stats.laps["user"].turns > 0
    assert stats.stops == {"ended": 23}
    assert ledger.released == ["w"]
    assert all(
        [t.index for t in d.turns] == [t.index for t in sinks.log[d.index]] for d in sinks.finished
    )


async def test_a_place_that_falls_free_is_filled_while_the_others_stand_still() -> None:
    client, ledger, sinks = Paced(), Ledger(9), Sinks()
    running = asyncio.create_task(walker_of(client, ledger, sinks, 3).run())
    await quiet()
    while client.waiting:
        progress = ledger.core.progress()
        assert len(client.waiting) == progress.leased == min(3, 9 - progress.done)
        # Only the highest index moves on: the first two stand still until the end.
        client.let_go(max(client.waiting, key=lambda d: client.waiting[d].priority))
        await quiet()
    await bounded(running)
    assert [d.index for d in sinks.finished] == [2, 3, 4, 5, 6, 7, 8, 1, 0]


async def test_a_failure_gives_the_lease_back_and_the_index_is_played_again() -> None:
    class Failing(Scripted):
        async def ask(self, request: Request, dialogue: str) -> Answer:
            if request.priority == 1 and place(request) == (2, 0) and not ledger.failures:
                return Answer(request.id, failure=Failure("unavailable", "gone"))
            return await super().ask(request, dialogue)

    ledger, sinks, client = Ledger(4), Sinks(), Failing()
    stats = await bounded(walker_of(client, ledger, sinks, 2).run())
    assert [index for index, _ in ledger.failures] == [1]
    assert (stats.given_back, stats.last_failure) == (1, "agent's engine tiny-model: gone")
    twice = stats.copy().plus(stats)
    assert (twice.turns, twice.given_back) == (2 * stats.turns, 2)
    assert twice.laps["agent"].turns == 2 * stats.laps["agent"].turns
    assert sorted(d.index for d in sinks.finished) == [0, 1, 2, 3]
    again = next(d for d in sinks.finished if d.index == 1)
    assert again.attempt == 2
    assert sinks.begun.count(1) == 2
    asked = [place(r)[0] for r in client.requests if r.priority == 1]
    assert sorted(asked) == [t.index for t in again.turns]  # what was logged is not asked again


async def test_an_index_that_always_fails_is_given_up_and_the_rest_is_played() -> None:
    class Failing(Scripted):
        async def ask(self, request: Request, dialogue: str) -> Answer:
            if request.priority == 2:
                return Answer(request.id, failure=Failure("deadline", "late"))
            return await super().ask(request, dialogue)

    ledger, sinks = Ledger(4), Sinks()
    stats = await bounded(walker_of(Failing(), ledger, sinks, 2).run())
    assert list(ledger.core.given_up()) == [2]
    assert sorted(d.index for d in sinks.finished) == [0, 1, 3]
    assert stats.given_back == len(ledger.failures) > 1


async def test_what_all_wait_for_costs_nobody_an_attempt_and_one_at_a_time_tries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("actors.walker.OUTAGE_PAUSES_S", (0.01, 0.01))
    asked_at_once: list[int] = []

    class Away(Scripted):
        """Answers a few requests, is away for many, and is back."""

        asked = open = 0

        async def ask(self, request: Request, dialogue: str) -> Answer:
            self.asked += 1
            self.open += 1
            try:
                await asyncio.sleep(0)
                if 10 < self.asked <= 60:
                    asked_at_once.append(self.open)
                    return Answer(request.id, failure=Failure("unavailable", "gone"))
                return await super().ask(request, dialogue)
            finally:
                self.open -= 1

    ledger, sinks = Ledger(12), Sinks()
    stats = await bounded(walker_of(Away(), ledger, sinks, 6).run())
    assert sorted(d.index for d in sinks.finished) == list(range(12))
    assert ledger.core.given_up() == {}
    assert ledger.blamed.count("loss") == 1  # the first of them
    assert ledger.blamed.count("nobody") > 20
    assert set(asked_at_once[12:]) == {1}
    assert stats.waits_for == ""


async def test_a_dialogue_without_words_is_tried_again_before_that_is_its_row(
    tmp_path: Path,
) -> None:
    class Mumbling(Scripted):
        """Greets at the second attempt in index 0, and never in index 1."""

        async def ask(self, request: Request, dialogue: str) -> Answer:
            answer = await super().ask(request, dialogue)
            tried = sum(index == request.priority for index, _ in ledger.failures)
            mumbles = request.priority == 1 or (request.priority == 0 and not tried)
            if mumbles and place(request)[0] == 0:
                said = tuple(replace(one, text="") for one in answer.candidates)
                return replace(answer, candidates=said)
            return answer

    greeting = 'reference: ["Good day, what may it be?", "Hello there, some tea?"]'
    domain = tiny(tmp_path, changed((f"    {greeting}\n", "")))
    ledger, sinks = Ledger(3), Sinks()
    walker = Walker("w", make_cast(domain, Mumbling()), ledger, sinks, 3)
    await bounded(walker.run())
    by_index = {dialogue.index: dialogue for dialogue in sinks.finished}
    assert by_index[0].ended
    assert by_index[0].attempt == 2
    assert by_index[1].stop_reason is StopReason.NO_WORDS
    assert by_index[1].attempt == Caps().failures
    assert set(ledger.blamed) == {"dialogue"}


async def test_a_ledger_that_has_come_back_is_told_what_is_played() -> None:
    class Forgetting(Scripted):
        """While it speaks, the ledger dies and comes back."""

        async def ask(self, request: Request, dialogue: str) -> Answer:
            if len(self.requests) == 7:
                ledger.core = LedgerCore(4, clock=lambda: 0.0, seats=1)
            return await super().ask(request, dialogue)

    ledger, sinks = Ledger(4), Sinks()
    await bounded(walker_of(Forgetting(), ledger, sinks, 2).run())
    assert Counter(d.index for d in sinks.finished) == dict.fromkeys(range(4), 1)
    assert Counter(sinks.begun) == dict.fromkeys(range(4), 1)  # nothing was leased twice


async def test_what_is_durable_is_not_played_and_what_is_logged_goes_on() -> None:
    first = Sinks()
    await bounded(walker_of(Scripted(), Ledger(3), first, 3).run())
    whole = {dialogue.index: dialogue for dialogue in first.finished}
    sinks = Sinks(known={0}, log={1: list(whole[1].turns[:2])})
    ledger, client = Ledger(3), Scripted()
    await bounded(walker_of(client, ledger, sinks, 3).run())
    assert {d.index: d for d in sinks.finished} == {1: whole[1], 2: whole[2]}
    assert ledger.core.progress().done == 3
    assert not [r for r in client.requests if r.priority == 1 and place(r)[0] < 2]


async def test_a_dialogues_own_failure_is_a_record() -> None:
    class Refusing(Scripted):
        async def ask(self, request: Request, dialogue: str) -> Answer:
            return Answer(request.id, failure=Failure("refused", "no"))

    ledger, sinks = Ledger(2), Sinks()
    stats = await bounded(walker_of(Refusing(), ledger, sinks, 2).run())
    assert {d.stop_reason for d in sinks.finished} == {StopReason.REFUSED}
    assert (stats.dialogues, stats.ended, ledger.failures) == (2, 0, [])


async def test_stop_leaves_what_is_in_flight_unfinished_and_keeps_what_is_over() -> None:
    client, ledger = Paced(), Ledger(9)
    storing = asyncio.Event()

    class Slow(Sinks):
        async def finish(self, dialogue: Dialogue, epoch: int) -> None:
            await storing.wait()
            await super().finish(dialogue, epoch)

    sinks = Slow()
    walker = walker_of(client, ledger, sinks, 3)
    running = asyncio.create_task(walker.run())
    await quiet()
    over = max(client.waiting, key=lambda d: client.waiting[d].priority)
    while over in client.waiting:
        client.let_go(over)
        await quiet()
    walker.stop()
    await quiet()
    assert not running.done()  # the sink still has one to make durable
    assert client.waiting == {}
    storing.set()
    await bounded(running)
    assert [dialogue.index for dialogue in sinks.finished] == [2]
    progress = ledger.core.progress()
    assert (progress.done, progress.leased, progress.owed) == (1, 0, 8)
    assert sorted(sinks.begun) == [0, 1, 2, 3]
    walks = {make_plan(kiosk(), PlanSource(0), index).walk_id for index in range(4)}
    assert set(client.scripted.released) == walks


async def test_an_engine_that_cannot_work_at_all_ends_the_run() -> None:
    class Broken(Scripted):
        async def ask(self, request: Request, dialogue: str) -> Answer:
            if request.priority == 3:
                raise EngineError("no such model", permanent=True)
            return await super().ask(request, dialogue)

    ledger, sinks = Ledger(50), Sinks()
    with pytest.raises(EngineError, match="no such model"):
        await bounded(walker_of(Broken(), ledger, sinks, 2).run())
    assert 3 not in {dialogue.index for dialogue in sinks.finished}
    assert ledger.core.progress().leased == 0
    assert not ledger.core.progress().complete
    assert ledger.released == ["w"]


async def test_a_sink_that_is_away_costs_its_dialogue_no_more_than_the_lease() -> None:
    class Away(Sinks):
        async def begin(self, index: int, walk_id: str, epoch: int) -> Sequence[Turn] | None:
            turns = await super().begin(index, walk_id, epoch)
            if self.begun.count(index) == 1 and index == 1:
                raise Unavailable("the sink does not come back")
            return turns

        async def finish(self, dialogue: Dialogue, epoch: int) -> None:
            if dialogue.index == 0 and not self.lost:
                self.lost = True
                raise Unavailable("the sink does not come back")
            await super().finish(dialogue, epoch)

        lost = False

    ledger, sinks = Ledger(3), Away()
    await bounded(walker_of(Scripted(), ledger, sinks, 2).run())
    assert sorted(d.index for d in sinks.finished) == [0, 1, 2]
    assert sorted(index for index, _ in ledger.failures) == [0, 1]


async def test_a_late_walker_reports_nothing_of_a_dialogue_that_another_plays() -> None:
    class Late(Sinks):
        """Index 0 is another walker's by the time it begins, index 1 by the time it is over."""

        async def begin(self, index: int, walk_id: str, epoch: int) -> Sequence[Turn] | None:
            if index == 0:
                raise Superseded("another walker's")
            return await super().begin(index, walk_id, epoch)

        async def finish(self, dialogue: Dialogue, epoch: int) -> None:
            if dialogue.index == 1:
                raise Superseded("another walker's")
            await super().finish(dialogue, epoch)

    ledger, sinks = Ledger(3), Late()
    walker = walker_of(Scripted(), ledger, sinks, 3)
    playing = asyncio.create_task(walker.run())
    await quiet()
    assert ledger.core.progress().done == 1  # no other is durable
    assert not ledger.failures
    walker.stop()
    await bounded(playing)


async def test_a_dialogue_whose_lease_is_lost_is_left_at_its_next_renewal() -> None:
    client, ledger, sinks = Paced(), Ledger(2), Sinks()
    walker = Walker("w", make_cast(kiosk(), client), ledger, sinks, 2, renew_s=0.01)
    playing = asyncio.create_task(walker.run())
    await quiet()
    assert len(client.waiting) == 2
    ledger.core.done(0, 99)  # the other walker was sooner
    await asyncio.sleep(0.2)
    assert len(client.waiting) == 1
    assert walker.stats.alive == 1
    walker.stop()
    await bounded(playing)


async def quiet() -> None:
    """Let everything run that does not wait for the test."""
    for _ in range(200):
        await asyncio.sleep(0)


async def test_a_walker_that_can_renew_no_more_fails_and_does_not_play_on() -> None:
    @dataclass
    class Broken(Ledger):
        async def renew(self, walker: str, leases: Sequence[Lease]) -> Sequence[Lease]:
            raise ValueError("a mistake in the ledger")

    ledger = Broken(3)
    walker = Walker("w", make_cast(kiosk(), Paced()), ledger, Sinks(), 2, renew_s=0.001)
    with pytest.raises(ValueError, match="a mistake"):
        await bounded(walker.run())
    assert ledger.released == ["w"]


class Time:
    """The event loop's clock, which a test sets forward."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = 0.0
        loop = asyncio.get_running_loop()
        real = loop.time
        monkeypatch.setattr(loop, "time", lambda: real() + self.ahead)


class Leisurely(Scripted):
    """Takes 60 s over every answer, all of them in the queue or none."""

    def __init__(self, time: Time, queued: bool) -> None:
        super().__init__()
        self.time, self.queued = time, queued

    async def ask(self, request: Request, dialogue: str) -> Answer:
        self.time.ahead += 60
        answer = await super().ask(request, dialogue)
        return replace(answer, queue_s=60.0 if self.queued else 0.0)


@pytest.mark.parametrize("queued", [True, False])
async def test_a_dialogue_has_its_time_without_what_it_waits_in_queues(
    monkeypatch: pytest.MonkeyPatch, queued: bool
) -> None:
    playing, client = PlayingTime(100.0), Leisurely(Time(monkeypatch), queued)
    ledger, sinks = Ledger(2), Sinks()
    walker = walker_of(Timed(client, playing), ledger, sinks, 1, playing=playing)
    await walker.run()
    assert sorted(d.index for d in sinks.finished) == [0, 1]
    turns = sum(len(dialogue.turns) for dialogue in sinks.finished)
    assert len(client.requests) == turns > 4  # every time it goes on where it was
    assert bool(ledger.failures) is not queued
    assert set(ledger.blamed) <= {"loss"}
    assert all("dialogue_deadline_s" in reason for _, reason in ledger.failures)


async def test_what_hangs_elsewhere_ends_at_the_dialogues_deadline_and_is_no_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    time = Time(monkeypatch)

    class Hanging(Sinks):
        async def begin(self, index: int, walk_id: str, epoch: int) -> Sequence[Turn] | None:
            await super().begin(index, walk_id, epoch)
            return []

        async def turn(self, index: int, walk_id: str, epoch: int, turn: Turn) -> None:
            if index == 1:
                time.ahead += 100
                await asyncio.get_running_loop().create_future()

    ledger, sinks, playing = Ledger(3), Hanging(), PlayingTime(100.0)
    await walker_of(Timed(Scripted(), playing), ledger, sinks, 1, playing=playing).run()
    assert sorted(d.index for d in sinks.finished) == [0, 2]
    assert ledger.blamed == ["loss"] * Caps().losses
    assert list(ledger.core.given_up()) == [1]
