"""A client's requests get one answer each, whatever happens to the replicas."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace

import pytest

from actors.engines.client import ClientLimits, EngineClient
from actors.engines.reference import ReferenceBackend
from actors.engines.replica import ReplicaCore
from actors.engines.routing import UNTOLD, Router
from specs.engine import Answer, Polled, Replica, Request, Sampling
from specs.engine_section import EngineSection, ReferenceFaults
from specs.errors import EngineError

QUICK = ClientLimits(backoff_s=(0.001, 0.005), poll_s=0.05, call_s=1.0, give_up_s=0.05)
PATIENT = ClientLimits(backoff_s=(0.001, 0.005), poll_s=0.05, call_s=1.0)


def request(name: str, seed: int = 0, n: int = 1, role: str = "") -> Request:
    said = ("one", "two", "three")
    return Request(name, Sampling(8, seed, n), role, references=said, deadline_s=5.0)


async def replica(
    name: str, faults: ReferenceFaults | None = None, max_running: int = 64
) -> ReplicaCore:
    config = EngineSection(
        kind="reference", max_running=max_running, faults=faults or ReferenceFaults()
    )
    core = ReplicaCore(ReferenceBackend(config, name), name)
    await core.start()
    return core


@contextlib.asynccontextmanager
async def client(*replicas: Replica, limits: ClientLimits = PATIENT) -> AsyncIterator[EngineClient]:
    made = EngineClient({f"r{i}": one for i, one in enumerate(replicas)}, limits=limits)
    try:
        yield made
    finally:
        await made.close()


async def ask_many(asker: EngineClient, count: int) -> list[Answer]:
    return await asyncio.gather(*(asker.ask(request(f"q{i}", i), i % 20) for i in range(count)))


async def until(condition: Callable[[], bool]) -> bool:
    for _ in range(5000):
        if condition():
            return True
        await asyncio.sleep(0.001)
    return False


class Watched:
    """A replica that counts its calls, can be cut off, and can lose its answers."""

    def __init__(self, core: ReplicaCore) -> None:
        self.core = core
        self.error: EngineError | None = None
        self.submitted: list[int] = []
        self.aborted: list[str] = []
        self.start = core.start
        self.stats = core.stats
        self.reset_cache = core.reset_cache
        self.stop = core.stop

    async def submit(self, client: str, requests: Sequence[Request]) -> Polled:
        if self.error is not None:
            raise self.error
        self.submitted.append(len(requests))
        return await self.core.submit(client, requests)

    async def poll(self, client: str, acknowledged: int, timeout_s: float) -> Polled:
        polled = await self.core.poll(client, acknowledged, timeout_s)
        if self.error is not None:
            raise self.error
        return polled

    async def abort(self, client: str, request_ids: Sequence[str]) -> None:
        self.aborted += request_ids
        await self.core.abort(client, request_ids)


async def test_the_requests_of_one_tick_travel_together() -> None:
    watched = Watched(await replica("a"))
    async with client(watched) as asker:
        answers = await ask_many(asker, 200)
        assert [answer.id for answer in answers] == [f"q{i}" for i in range(200)]
        assert all(answer.failure is None for answer in answers)
        # As many as there is room for: its limit is 64, and half of that may wait.
        assert watched.submitted[0] == UNTOLD
        assert (max(watched.submitted), sum(watched.submitted)) == (96, 200)
        assert len(watched.submitted) < 7
        assert asker.in_flight == 0


async def test_an_answer_lost_on_the_way_is_fetched_again() -> None:
    watched = Watched(await replica("a", ReferenceFaults(latency_s=(0.0, 0.01))))
    async with client(watched) as asker:
        asking = asyncio.ensure_future(ask_many(asker, 50))
        for _ in range(5):
            await asyncio.sleep(0.002)
            watched.error = EngineError("unavailable")
            await asyncio.sleep(0.002)
            watched.error = None
        answers = await asking
    assert all(answer.failure is None for answer in answers)


async def test_a_replica_that_died_gets_its_requests_again() -> None:
    core = await replica("a", ReferenceFaults(latency_s=(0.001, 0.003), crash_after=30))

    async def restart() -> None:
        while True:
            await asyncio.sleep(0.002)
            await core.start()

    async with client(core) as asker:
        restarting = asyncio.ensure_future(restart())
        # Asked a few at a time: 30 requests are all that one life of it answers.
        for start in range(0, 100, 20):
            answers = await asyncio.gather(
                *(asker.ask(request(f"q{i}", i), i) for i in range(start, start + 20))
            )
            assert all(answer.failure is None for answer in answers)
        restarting.cancel()


async def test_a_request_that_its_replica_dies_of_is_given_up() -> None:
    core = await replica("a", ReferenceFaults(latency_s=(0.001, 0.003)))
    died = 0

    class Mortal(Watched):
        async def submit(self, client: str, requests: Sequence[Request]) -> Polled:
            nonlocal died
            taken = await super().submit(client, requests)
            if any(one.id == "poison" for one in requests):
                died += 1
                await core.stop()
                await core.start()
            return taken

    async with client(Mortal(core), limits=replace(PATIENT, lives=4)) as asker:
        asked = [asker.ask(request(name), name) for name in ("poison", "a", "b")]
        poison, one, other = await asyncio.wait_for(asyncio.gather(*asked), 30)
        assert poison.failure is not None
        assert "have died 4 times" in poison.failure.message
        assert died == 4
        # Who was there each time cannot be told from it.
        assert {one.failure, other.failure} <= {None, poison.failure}
        again = await asyncio.wait_for(asker.ask(request("c"), "c"), 30)
        assert again.failure is None


async def test_another_replica_takes_over() -> None:
    first, second = Watched(await replica("a")), Watched(await replica("b"))
    async with client(first, second) as asker:
        before = await ask_many(asker, 40)
        assert {answer.replica for answer in before} == {"a", "b"}
        first.error = EngineError("gone")
        during = await asyncio.gather(
            *(asker.ask(request(f"again{i}", i), i % 20) for i in range(40))
        )
        assert {answer.replica for answer in during} == {"b"}
        first.error = None
        assert await until(lambda: not asker._router.is_down("r0"))
        fresh = await asyncio.gather(*(asker.ask(request(f"new{i}", i), -i) for i in range(1, 40)))
        assert "a" in {answer.replica for answer in fresh}


async def test_what_cannot_be_reached_is_given_up() -> None:
    watched = Watched(await replica("a"))
    watched.error = EngineError("gone")
    async with client(watched, limits=QUICK) as asker:
        answer = await asyncio.wait_for(asker.ask(request("q"), 0), 5)
        assert answer.failure is not None
        assert answer.failure.kind == "unavailable"
        assert "gone" in answer.failure.message
        watched.error = None  # and when it is back, it is used again
        assert (await asyncio.wait_for(asker.ask(request("q"), 0), 5)).failure is None


async def test_what_never_works_fails_at_once() -> None:
    watched = Watched(await replica("a"))
    watched.error = EngineError("no such model", permanent=True)
    async with client(watched) as asker:
        for _ in range(2):
            with pytest.raises(EngineError, match="no such model"):
                await asyncio.wait_for(asker.ask(request("q"), 0), 5)


async def test_failures_that_may_pass_are_tried_again() -> None:
    core = await replica("a", ReferenceFaults(failure=0.3))
    async with client(core) as asker:
        answers = await ask_many(asker, 300)
    failed = [answer for answer in answers if answer.failure is not None]
    assert len(failed) < 30  # 0.3 ** 3 of 300 are 8
    assert [answer.id for answer in answers] == [f"q{i}" for i in range(300)]
    assert (await core.stats()).failed > 80


async def test_permanent_failures_are_not() -> None:
    core = await replica("a")
    async with client(core) as asker:
        answer = await asker.ask(Request("q", Sampling(8, 0)), 0)
        assert answer.failure is not None
        assert answer.failure.permanent
    assert (await core.stats()).failed == 1


async def test_hanging_requests_end_at_their_deadline() -> None:
    core = await replica("a", ReferenceFaults(hang=1.0))
    async with client(core) as asker:
        hanging = Request("q", Sampling(8, 0), references=("one",), deadline_s=0.002)
        answer = await asyncio.wait_for(asker.ask(hanging, 0), 5)
        assert answer.failure is not None
        assert answer.failure.kind == "deadline"
    assert (await core.stats()).failed == 3


async def test_cancelling_the_caller_aborts_the_request() -> None:
    watched = Watched(await replica("a", ReferenceFaults(hang=1.0)))
    async with client(watched) as asker:
        asking = asyncio.ensure_future(asker.ask(request("q"), 0))
        assert await until(lambda: watched.core.running == 1)
        asking.cancel()
        assert await until(lambda: watched.core.running == 0)
        assert watched.aborted == ["q"]
        assert asker.in_flight == 0


async def test_abort_answers_whoever_waits() -> None:
    core = await replica("a", ReferenceFaults(hang=1.0))
    async with client(core) as asker:
        asking = asyncio.ensure_future(asker.ask(request("q"), 0))
        await asyncio.sleep(0.005)
        await asker.abort(["q", "unknown"])
        failure = (await asyncio.wait_for(asking, 5)).failure
        assert failure is not None
        assert failure.kind == "aborted"


async def test_in_flight_is_bounded() -> None:
    watched = Watched(await replica("a", ReferenceFaults(latency_s=(0.001, 0.001))))
    limits = ClientLimits(in_flight=8, poll_s=0.05)
    async with client(watched, limits=limits) as asker:
        assert len(await ask_many(asker, 50)) == 50
    assert max(watched.submitted) <= 8


async def test_closing_leaves_nobody_waiting() -> None:
    core = await replica("a", ReferenceFaults(hang=1.0))
    async with client(core) as asker:
        asking = asyncio.ensure_future(asker.ask(request("q"), 0))
        await asyncio.sleep(0.002)
    with pytest.raises(EngineError, match="closed"):
        await asking


async def test_a_client_that_was_dropped_submits_again() -> None:
    now = 0.0
    config = EngineSection(kind="reference", faults=ReferenceFaults(latency_s=(0.02, 0.02)))
    core = ReplicaCore(ReferenceBackend(config, "a"), "a", clock=lambda: now)
    await core.start()
    async with client(core) as asker:
        asking = asyncio.ensure_future(asker.ask(request("q"), 0))
        await asyncio.sleep(0.005)
        now = 10_000.0
        await core.submit("other", [])
        assert (await asyncio.wait_for(asking, 5)).failure is None


async def test_a_request_that_the_replica_has_lost_is_sent_again() -> None:
    """A call that was given up may be executed late, an abort behind the asking of the same."""
    watched = Watched(await replica("a", ReferenceFaults(latency_s=(0.01, 0.01))))
    async with client(watched) as asker:
        asking = asyncio.ensure_future(asker.ask(request("q"), 0))
        assert await until(lambda: watched.core.running == 1)
        await watched.core.abort(asker.name, ["q"])
        assert (await asyncio.wait_for(asking, 5)).failure is None


async def test_two_lives_of_one_walker_do_not_take_each_others_answers() -> None:
    core = await replica("a", ReferenceFaults(latency_s=(0.001, 0.005)))
    lives = [EngineClient({"r": core}, "walker-0:writer", PATIENT) for _ in range(2)]
    for answers in await asyncio.gather(*(ask_many(life, 100) for life in lives)):
        assert all(answer.failure is None for answer in answers)
    assert (await core.stats()).finished == 200
    for life in lives:
        await life.close()


SLOW = ReferenceFaults(latency_s=(0.01, 0.02))


async def test_replicas_that_join_take_over_what_waits_and_those_that_leave_are_drained() -> None:
    first, second = [Watched(await replica(name, SLOW, max_running=4)) for name in "ab"]
    async with client(first) as asker:
        asking = asyncio.ensure_future(ask_many(asker, 200))
        assert await until(lambda: first.core.running == 4)
        asker.set_replicas({"r0": first, "r1": second})
        assert await until(lambda: second.core.running == 4)  # though nothing came back for it
        asker.set_replicas({"r1": second})
        submitted = sum(first.submitted)
        answers = await asyncio.wait_for(asking, 30)
        assert [answer.id for answer in answers] == [f"q{i}" for i in range(200)]
        assert all(answer.failure is None for answer in answers)
        assert sum(first.submitted) == submitted
        assert (await first.stats()).finished + (await second.stats()).finished == 200
        assert await until(lambda: list(asker._links) == ["r1"])
        asker.set_replicas({"r0": first, "r1": second})  # and it may come back
        again = await asyncio.gather(*(asker.ask(request(f"x{i}"), f"x{i}") for i in range(20)))
        assert {answer.replica for answer in again} == {"a", "b"}
        with pytest.raises(ValueError, match="needs a replica"):
            asker.set_replicas({})


async def test_what_runs_where_a_replica_leaves_is_moved_when_that_fails() -> None:
    first, second = [Watched(await replica(name)) for name in "ab"]
    hanging = Watched(await replica("h", ReferenceFaults(hang=1.0)))
    async with client(hanging) as asker:
        asking = asyncio.ensure_future(ask_many(asker, 20))
        assert await until(lambda: hanging.core.running == 20)
        asker.set_replicas({"r1": first, "r2": second})
        await asyncio.sleep(0.01)
        assert not asking.done()  # it may still answer
        hanging.error = EngineError("its node is gone")
        await hanging.core.stop()
        answers = await asyncio.wait_for(asking, 30)
        assert {answer.replica for answer in answers} == {"a", "b"}
        assert sorted(asker._links) == ["r1", "r2"]


async def test_another_process_may_take_a_replicas_name() -> None:
    gone, other = Watched(await replica("a", ReferenceFaults(hang=1.0))), await replica("a")
    async with client(gone) as asker:
        asking = asyncio.ensure_future(ask_many(asker, 20))
        assert await until(lambda: gone.core.running > 0)
        gone.error = EngineError("gone")
        asker.set_replicas({"r0": other})
        await gone.core.stop()
        assert all(answer.failure is None for answer in await asyncio.wait_for(asking, 30))


async def test_waiting_to_be_sent_is_waiting_in_the_queue() -> None:
    one = await replica("a", ReferenceFaults(latency_s=(0.05, 0.05)), max_running=1)
    async with client(one) as asker:
        answers = await ask_many(asker, 16)
    # Half of them waited here, for 0.4 s and then at the replica.
    assert max(answer.queue_s for answer in answers) > 0.6


async def test_the_oldest_dialogue_goes_first_wherever_it_waits() -> None:
    one = await replica("a", SLOW, max_running=1)
    async with client(one) as asker:
        order: list[int] = []

        async def ask(index: int) -> None:
            await asker.ask(replace(request(f"q{index}"), priority=index), index)
            order.append(index)

        await asyncio.gather(*(ask(index) for index in reversed(range(30))))
    # Those that were sent before the replica had told its limit, then all in their order.
    assert order[1 + UNTOLD :] == sorted(order[1 + UNTOLD :])


async def test_a_replica_that_is_not_used_is_when_it_is_found_empty(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("actors.engines.client.Router", functools.partial(Router, members=1))
    first, second = [Watched(await replica(name, SLOW, max_running=4)) for name in "ab"]
    async with client(first, second, limits=replace(PATIENT, sound_s=0.01)) as asker:
        asking = asyncio.ensure_future(ask_many(asker, 100))
        assert await until(lambda: first.core.running == second.core.running == 4)
        assert all(answer.failure is None for answer in await asking)


async def test_the_roles_of_a_dialogue_have_replicas_of_their_own() -> None:
    first, second = await replica("a"), await replica("b")
    async with client(first, second) as asker:
        for turn in range(4):
            asked = [request(f"{role}{turn}", role=role) for role in ("user", "agent")]
            said = [(await asker.ask(one, "d")).replica for one in asked]
            assert set(said) == {"a", "b"}
            assert said == [(await asker.ask(replace(one, id="x"), "d")).replica for one in asked]
        asker.release("d")
        assert asker._router.sides("r0") == asker._router.sides("r1") == 0


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_replicas_do_every_request_is_answered_and_the_counts_are_right(
    seed: int,
) -> None:
    draws = random.Random(seed)
    faults = ReferenceFaults(latency_s=(0.0, 0.01), failure=0.05)
    every = {f"r{i}": Watched(await replica(f"r{i}", faults, max_running=8)) for i in range(4)}
    async with client(*every.values(), limits=replace(PATIENT, tries=9, lives=99)) as asker:

        async def ask(number: int) -> Answer:
            role = draws.choice(["user", "agent"])
            asked = request(f"q{number}", number, draws.randint(1, 3), role)
            asking = asyncio.ensure_future(asker.ask(asked, number % 40))
            if draws.random() < 0.05:
                await asyncio.sleep(0.002)
                asking.cancel()
            try:
                return await asking
            except asyncio.CancelledError:
                return Answer(asked.id)
            finally:
                asker.release(number % 40)

        async def trouble() -> None:
            while True:
                await asyncio.sleep(0.004)
                here = draws.sample(sorted(every), draws.randint(1, 4))
                asker.set_replicas({name: every[name] for name in here})
                one = every[draws.choice(here)]
                if draws.random() < 0.3:  # it loses all that it had
                    await one.core.stop()
                    await one.core.start()
                elif draws.random() < 0.3:
                    one.error = EngineError("away")
                    await asyncio.sleep(0.01)
                    one.error = None

        troubling = asyncio.ensure_future(trouble())
        answers = await asyncio.wait_for(asyncio.gather(*(ask(i) for i in range(600))), 50)
        assert not troubling.done()
        troubling.cancel()
        for one in every.values():
            one.error = None
        assert [answer.id for answer in answers] == [f"q{i}" for i in range(600)]
        assert all(answer.failure is None for answer in answers)
        assert asker.in_flight == 0
        places = asker._router._places.values()
        assert [(place.own, place.sent, place.sides) for place in places] == [
            (0, 0, 0) for _ in places
        ]
        assert not asker._router._holding
        assert await until(lambda: all(one.core.running == 0 for one in every.values()))
