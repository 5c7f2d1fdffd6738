"""A replica keeps its promises: one answer a request, whatever its clients do."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.engines.replica import TRIES, ReplicaCore
from actors.engines.replica_actor import HangWatch
from specs.engine import (
    Answer,
    Candidate,
    EngineInfo,
    EngineStats,
    Later,
    Load,
    Request,
    Sampling,
    dead,
)
from specs.errors import EngineError


class Scripted:
    """A backend whose answers the test hands out one by one."""

    def __init__(self, max_running: int = 4) -> None:
        self.info = EngineInfo("scripted", "references", 0, max_running)
        self.running: dict[str, asyncio.Future[Answer]] = {}
        self.begun: list[str] = []
        self.aborted: list[str] = []
        self.starts = 0
        self.pause = 0.0
        self.told = EngineStats()

    async def start(self) -> EngineInfo:
        self.starts += 1
        return self.info

    def admit(self) -> float:
        return self.pause

    async def generate(self, request: Request) -> Answer:
        self.begun.append(request.id)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.running[request.id] = future
        return await future

    def finish(self, request_id: str) -> None:
        answer = Answer(request_id, (Candidate("said", "stop", 1),), completion_tokens=1)
        self.running.pop(request_id).set_result(answer)

    async def abort(self, request_ids: Sequence[str]) -> None:
        self.aborted.extend(request_ids)

    def stats(self) -> EngineStats:
        return self.told

    async def reset_cache(self) -> None:
        pass

    async def stop(self) -> None:
        pass


def ask(name: str, n: int = 1, priority: int = 0, deadline_s: float = 60.0) -> Request:
    return Request(name, Sampling(8, 0, n), priority=priority, deadline_s=deadline_s)


async def started(backend: Scripted) -> ReplicaCore:
    core = ReplicaCore(backend, "r0")
    await core.start()
    return core


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_answers_come_back_until_they_are_acknowledged() -> None:
    backend = Scripted()
    core = await started(backend)
    await core.submit("c", [ask("a"), ask("b")])
    await settle()
    backend.finish("b")
    first = await core.poll("c", 0, 1.0)
    again = await core.poll("c", 0, 1.0)
    assert [answer.id for _, answer in first.answers] == ["b"]
    assert again == first
    backend.finish("a")
    after = await core.poll("c", first.answers[-1][0], 1.0)
    assert [answer.id for _, answer in after.answers] == ["a"]
    assert after.answers[0][1].replica == "r0"
    assert (await core.poll("c", after.answers[0][0], 0.001)).answers == ()


async def test_an_acknowledgement_of_another_incarnation_loses_nothing() -> None:
    backend = Scripted()
    core = await started(backend)
    await core.submit("c", [ask("a")])
    await settle()
    backend.finish("a")
    for foreign in (-1, 2**63 - 1):
        assert len((await core.poll("c", foreign, 1.0)).answers) == 1


async def test_submitting_again_runs_nothing_twice() -> None:
    backend = Scripted(max_running=1)
    core = await started(backend)
    for _ in range(3):
        await core.submit("c", [ask("a"), ask("waiting")])
        await settle()
    backend.finish("a")
    await settle()
    await core.submit("c", [ask("a")])  # finished, and not acknowledged
    await settle()
    assert backend.begun == ["a", "waiting"]


async def test_two_clients_may_use_one_id() -> None:
    backend = Scripted()
    core = await started(backend)
    await core.submit("c", [ask("a")])
    await core.submit("d", [ask("a")])
    await settle()
    for name in list(backend.running):
        backend.finish(name)
    for client in ("c", "d"):
        polled = await core.poll(client, 0, 1.0)
        assert [answer.id for _, answer in polled.answers] == ["a"]


async def test_admission_goes_by_priority_then_arrival_and_counts_candidates() -> None:
    backend = Scripted(max_running=4)
    core = await started(backend)
    await core.submit("c", [ask("first", n=4)])
    await core.submit("c", [ask("late"), ask("wide", n=9, priority=-1), ask("later")])
    await settle()
    assert backend.begun == ["first"]
    backend.finish("first")
    await settle()
    assert backend.begun == ["first", "wide"]  # more than all places: it gets them all
    backend.finish("wide")
    await settle()
    assert backend.begun[2:] == ["late", "later"]
    assert (await core.stats()).running == 2


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 2)), max_size=20), st.integers(1, 5))
def test_never_more_candidates_than_places(asked: list[tuple[int, int]], limit: int) -> None:
    async def play() -> None:
        backend = Scripted(limit)
        core = await started(backend)
        sizes = {str(i): min(n, limit) for i, (n, _) in enumerate(asked)}
        await core.submit("c", [ask(str(i), n, p) for i, (n, p) in enumerate(asked)])
        done: list[str] = []
        acknowledged = 0
        while len(done) < len(asked):
            await settle()
            assert 0 < sum(sizes[name] for name in backend.running) <= limit
            backend.finish(next(iter(backend.running)))
            polled = await core.poll("c", acknowledged, 1.0)
            acknowledged = polled.answers[-1][0]
            done += [answer.id for _, answer in polled.answers]
        assert sorted(done) == sorted(sizes)
        levels = [asked[int(name)][1] for name in backend.begun]
        assert levels == sorted(levels)

    asyncio.run(play())


async def test_the_deadline_counts_from_admission() -> None:
    backend = Scripted(max_running=1)
    core = await started(backend)
    await core.submit("c", [ask("slow", deadline_s=0.005), ask("next", deadline_s=60.0)])
    polled = await core.poll("c", 0, 5.0)
    failure = polled.answers[0][1].failure
    assert failure is not None
    assert failure.kind == "deadline"
    counts = await core.stats()
    assert (counts.failed, counts.overdue) == (1, 1)
    await settle()
    assert backend.aborted == ["slow"]
    assert backend.begun == ["slow", "next"]  # whose own time begins only now


async def test_what_the_backend_does_not_admit_yet_waits_without_a_deadline() -> None:
    backend = Scripted()
    core = await started(backend)
    backend.pause = 0.02
    await core.submit("c", [ask("a", deadline_s=0.01), ask("b")])
    await settle()
    stats = await core.stats()
    assert (stats.running, stats.waiting, core.running) == (0, 2, 0)  # so nothing can hang
    await core.abort("c", ["b"])
    await asyncio.sleep(0.05)
    assert backend.begun == []
    backend.pause = 0.0
    await asyncio.sleep(0.05)
    assert backend.begun == ["a"]
    failure = (await core.poll("c", 0, 5.0)).answers[0][1].failure
    assert failure is not None
    assert failure.kind == "deadline"


async def test_what_comes_later_is_sent_again_in_its_old_place_and_not_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("actors.engines.replica.backoff", lambda *_: 0.0)
    backend = Scripted(max_running=1)
    core = await started(backend)
    await core.submit("c", [ask("a"), ask("b"), ask("c")])
    await settle()
    backend.running.pop("a").set_exception(Later("busy"))
    await asyncio.sleep(0.01)
    backend.finish("b")
    await asyncio.sleep(0.01)
    assert backend.begun == ["a", "b", "a"]
    for _ in range(TRIES - 1):
        backend.running.pop("a").set_exception(Later("busy", at_once=True))
        if "c" in backend.running:
            backend.finish("c")
        await asyncio.sleep(0.01)
        if "c" in backend.running:
            backend.finish("c")
        await asyncio.sleep(0.01)
    answers = {answer.id: answer for _, answer in (await core.poll("c", 0, 1.0)).answers}
    failure = answers["a"].failure
    assert failure is not None
    assert (failure.kind, failure.permanent) == ("unavailable", False)
    assert "busy" in failure.message
    assert backend.begun.count("a") == TRIES
    assert (await core.stats()).running == 0


async def test_a_postponed_request_may_be_aborted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.engines.replica.backoff", lambda *_: 0.01)
    backend = Scripted()
    core = await started(backend)
    await core.submit("c", [ask("a")])
    await settle()
    backend.running.pop("a").set_exception(Later("busy"))
    await settle()
    await core.abort("c", ["a"])
    await asyncio.sleep(0.03)
    stats = await core.stats()
    assert (stats.running, stats.waiting, backend.begun) == (0, 0, ["a"])


async def test_abort_frees_the_places_and_answers_nothing() -> None:
    backend = Scripted(max_running=1)
    core = await started(backend)
    await core.submit("c", [ask("a"), ask("b"), ask("c")])
    await settle()
    await core.abort("c", ["a", "b", "unknown"])
    await settle()
    assert backend.begun == ["a", "c"]
    assert backend.aborted == ["a"]
    stats = await core.stats()
    assert (stats.running, stats.waiting) == (1, 0)
    assert (await core.poll("c", 0, 0.001)).answers == ()


async def test_a_newer_poll_relieves_the_older_one() -> None:
    core = await started(Scripted())
    await core.submit("c", [])
    older = asyncio.ensure_future(core.poll("c", 0, 60.0))
    await settle()
    newer = asyncio.ensure_future(core.poll("c", 0, 60.0))
    assert (await asyncio.wait_for(older, 5)).answers == ()
    newer.cancel()


async def test_a_client_that_vanished_is_dropped_and_learns_it() -> None:
    now = 0.0
    backend = Scripted()
    core = ReplicaCore(backend, "r0", client_ttl_s=300.0, clock=lambda: now)
    await core.start()
    await core.submit("gone", [ask("a")])
    await settle()
    now = 1000.0
    await core.submit("c", [])
    await settle()
    assert backend.aborted == ["a"]
    assert (await core.poll("gone", 0, 1.0)).incarnation == ""


async def test_a_dead_backend_ends_the_incarnation_and_may_start_again() -> None:
    backend = Scripted()
    deaths: list[EngineError] = []
    core = ReplicaCore(backend, "r0", on_death=deaths.append)
    with pytest.raises(EngineError, match="not started"):
        await core.submit("c", [ask("a")])
    await core.start()
    before = (await core.submit("c", [ask("a"), ask("b")])).incarnation
    poll = asyncio.ensure_future(core.poll("c", 0, 60.0))
    await settle()
    backend.running["a"].set_exception(dead("gone"))
    with pytest.raises(EngineError, match="gone"):
        await poll
    with pytest.raises(EngineError, match="gone"):
        await core.submit("c", [])
    assert len(deaths) == 1
    await core.start()
    assert backend.starts == 2
    assert (await core.submit("c", [ask("a")])).incarnation != before


async def test_a_fault_of_the_backend_is_an_answer() -> None:
    backend = Scripted()
    core = await started(backend)
    await core.submit("c", [ask("a")])
    await settle()
    backend.running["a"].set_exception(KeyError("x"))
    failure = (await core.poll("c", 0, 1.0)).answers[0][1].failure
    assert failure is not None
    assert failure.kind == "unavailable"
    assert not failure.permanent


async def test_start_is_idempotent_and_tries_again_unless_it_is_hopeless() -> None:
    backend = Scripted()
    core = ReplicaCore(backend, "r0")
    assert list(await asyncio.gather(core.start(), core.start())) == [backend.info] * 2
    assert backend.starts == 1
    for permanent, starts in ((False, 2), (True, 1)):
        broken = Broken(permanent)
        core = ReplicaCore(broken, "r0")
        for _ in range(2):
            with pytest.raises(EngineError):
                await core.start()
        assert broken.starts == starts


class Broken(Scripted):
    """A backend that does not start."""

    def __init__(self, permanent: bool) -> None:
        super().__init__()
        self.permanent = permanent

    async def start(self) -> EngineInfo:
        self.starts += 1
        raise EngineError("no such model", self.permanent)


async def test_an_engine_that_sits_requests_out_still_owes_answers_when_they_are_over() -> None:
    backend = Scripted(max_running=1)
    core = await started(backend)
    now = 0.0
    watch = HangWatch(10.0, lambda: now)
    acknowledged = 0
    for name in ("a", "b"):  # admitting another one is no doing of the engine's
        assert not watch.hangs(core.awaited, core.moved)
        now += 5.0
        await core.submit("c", [ask(name, deadline_s=0.001)])
        ((acknowledged, late),) = (await core.poll("c", acknowledged, 5.0)).answers
        assert late.failure is not None
    assert (core.running, core.awaited) == (0, 2)
    assert watch.hangs(core.awaited, core.moved)
    await core.submit("c", [ask("d")])
    await settle()
    backend.finish("d")
    await core.poll("c", acknowledged, 5.0)
    assert core.awaited == 0
    assert not watch.hangs(core.awaited, core.moved)


def test_a_hang_is_no_progress_while_something_runs() -> None:
    now = 0.0
    watch = HangWatch(10.0, clock=lambda: now)

    def at(time: float, running: int, progress: int) -> bool:
        nonlocal now
        now = time
        return watch.hangs(running, progress)

    assert not at(100.0, 0, 5)  # idle for long is no hang
    assert not at(105.0, 1, 5)
    assert not at(112.0, 1, 6)
    assert not at(121.0, 1, 6)
    assert at(122.0, 1, 6)


async def test_the_answer_keeps_the_backends_times() -> None:
    now = 10.0
    backend = Scripted(max_running=1)
    core = ReplicaCore(backend, "r0", clock=lambda: now)
    await core.start()
    await core.submit("c", [ask("a"), ask("b")])
    await settle()
    now = 12.5
    backend.finish("a")
    await settle()
    future = backend.running.pop("b")
    future.set_result(replace(Answer("b"), queue_s=0.5, decode_s=2.0))
    await settle()
    answers = {answer.id: answer for _, answer in (await core.poll("c", 0, 1.0)).answers}
    assert answers["a"].queue_s == 0.0
    assert answers["b"].queue_s == 3.0
    assert answers["b"].decode_s == 2.0


async def test_every_client_is_told_what_the_others_have_there() -> None:
    backend = Scripted(max_running=4)
    core = await started(backend)
    assert (await core.submit("c", [ask("a", n=3), ask("b")])).load == Load(0, 4)
    assert (await core.submit("d", [ask("wide", n=9), ask("e")])).load == Load(4, 4)
    assert (await core.poll("stranger", 0, 60.0)).load == Load(9, 4)
    await settle()
    backend.finish("a")
    polled = await core.poll("c", 0, 1.0)
    assert polled.load == Load(5, 4)
    await core.abort("d", ["wide"])
    assert (await core.submit("c", [])).load == Load(1, 4)
    stats = await core.stats()
    assert (stats.running, stats.waiting, stats.limit) == (2, 0, 4)


async def test_admission_follows_what_the_engine_tells() -> None:
    now = 0.0
    backend = Scripted(max_running=8)
    core = ReplicaCore(backend, "r0", clock=lambda: now)
    assert (await core.stats()).limit == 0
    await core.start()
    await core.submit("c", [ask(str(i)) for i in range(40)])
    await settle()
    assert len(backend.running) == 8
    backend.told = EngineStats(running=4, waiting=4, kv_cache_use=1.0, preemptions=3)
    now += 1.0
    await core.submit("c", [])
    now += 1.0
    polled = await core.submit("c", [])
    assert polled.load == Load(0, 3)
    assert (await core.stats()).limit == 3
    for name in list(backend.running):
        backend.finish(name)
        await settle()
    assert len(backend.running) == 3
    assert len(backend.begun) == 11
    await core.stop()
