"""The reference engine says the references, seeded, with the faults that it was told to have."""

from __future__ import annotations

import asyncio

import pytest

from actors.engines.reference import ReferenceBackend, latency_of
from actors.engines.replica import ReplicaCore
from specs.engine import Answer, Request, Sampling
from specs.engine_section import EngineSection, ReferenceFaults
from specs.errors import EngineError

REFERENCES = ("one", "two words", "now three words")


def engine(**faults: float | int | tuple[float, float]) -> ReferenceBackend:
    config = EngineSection(kind="reference", faults=ReferenceFaults.model_validate(faults))
    return ReferenceBackend(config, "r0")


def request(seed: int, n: int = 1, name: str = "q") -> Request:
    return Request(name, Sampling(8, seed, n), references=REFERENCES)


async def said(backend: ReferenceBackend, count: int) -> list[Answer]:
    asked = (backend.generate(request(i * 10, name=f"q{i}")) for i in range(count))
    return list(await asyncio.gather(*asked))


async def test_the_seed_decides_and_candidate_i_has_seed_plus_i() -> None:
    several = await engine().generate(request(7, n=5))
    again = await engine().generate(request(7, n=5, name="another"))
    assert several.candidates == again.candidates
    for i, candidate in enumerate(several.candidates):
        assert (await engine().generate(request(7 + i))).candidates == (candidate,)
    assert several.completion_tokens == sum(len(c.text.split()) for c in several.candidates)


async def test_all_references_are_said_about_equally_often() -> None:
    texts = [answer.candidates[0].text for answer in await said(engine(), 600)]
    for reference in REFERENCES:
        assert 150 < texts.count(reference) < 250


async def test_without_references_it_refuses() -> None:
    answer = await engine().generate(Request("q", Sampling(8, 0)))
    assert answer.failure is not None
    assert answer.failure.permanent


async def test_faults_have_their_shares() -> None:
    failed = [answer.failure for answer in await said(engine(failure=0.25), 400)]
    assert 70 < len([failure for failure in failed if failure]) < 130
    garbage = [answer.candidates[0] for answer in await said(engine(garbage=0.5), 400)]
    wrong = [candidate for candidate in garbage if candidate.text not in REFERENCES]
    assert 160 < len(wrong) < 240
    assert {candidate.finish_reason for candidate in wrong} == {"length"}


async def test_the_latency_depends_on_the_seed_alone() -> None:
    for _ in range(2):
        answers = await said(engine(latency_s=(0.0, 0.01)), 50)
        latencies = [answer.decode_s for answer in answers]
        assert all(0.0 <= latency <= 0.01 for latency in latencies)
        assert len(set(latencies)) == 50
    again = await said(engine(latency_s=(0.0, 0.01)), 50)
    assert [answer.decode_s for answer in again] == latencies


def test_latency_grows_with_the_words_and_stragglers_have_their_share() -> None:
    spoken = ReferenceFaults(latency_s=(0.5, 1.5), token_s=0.02)
    drawn = [latency_of(spoken, seed, 0) for seed in range(400)]
    assert all(0.5 <= seconds < 1.5 for seconds in drawn)
    assert 0.9 < sum(drawn) / 400 < 1.1
    assert latency_of(spoken, 3, 30) == pytest.approx(drawn[3] + 0.6)
    slow = ReferenceFaults(latency_s=(0.5, 1.5), token_s=0.02, stragglers=0.1, straggler_factor=50)
    ratios = [latency_of(slow, seed, 10) / latency_of(spoken, seed, 10) for seed in range(2000)]
    assert {round(ratio, 6) for ratio in ratios} == {1.0, 50.0}
    assert 140 < sum(ratio > 1 for ratio in ratios) < 260


async def test_an_answer_takes_as_long_as_its_latency_says() -> None:
    faults = ReferenceFaults(latency_s=(0.001, 0.002), token_s=0.001, stragglers=0.5)
    backend = ReferenceBackend(EngineSection(kind="reference", faults=faults), "r0")
    for answer, seed in zip(await said(backend, 6), range(0, 60, 10), strict=True):
        words = len(answer.candidates[0].text.split())
        assert answer.decode_s == latency_of(faults, seed, words)


async def test_it_crashes_after_so_many_and_lives_again() -> None:
    backend = engine(crash_after=3)
    await backend.start()
    await said(backend, 3)
    for _ in range(2):
        with pytest.raises(EngineError, match="crashed"):
            await backend.generate(request(0))
    await backend.start()
    assert (await backend.generate(request(0))).failure is None


async def test_a_request_that_hangs_holds_nothing_up() -> None:
    config = EngineSection(kind="reference", max_running=3000, faults=ReferenceFaults(hang=0.5))
    core = ReplicaCore(ReferenceBackend(config, "r0"), "r0")
    await core.start()
    await core.submit("c", [request(i, name=f"q{i}") for i in range(2000)])
    answers = (await core.poll("c", 0, 5.0)).answers
    stats = await core.stats()
    assert len(answers) + stats.running == 2000
    assert 800 < stats.running < 1200
    await core.stop()
