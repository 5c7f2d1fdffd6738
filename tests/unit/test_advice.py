"""What to change, one case at a time; and silence where there is too little to say."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.advice import advise, bottleneck
from cluster.usage import Session
from tests.unit.usage_samples import engine_of, session_of, walkers_of

FULL_AND_IDLE = {"user": engine_of(0.41, replicas=2), "agent": engine_of(0.97, replicas=2)}


def only(session: Session) -> str:
    [advice] = advise(session)
    return str(advice)


def test_a_full_engine_beside_an_idle_one_wants_more_replicas() -> None:
    session = session_of(FULL_AND_IDLE)
    said = only(session)
    assert "the agent's engine had 97% of its places in use, and the user's 41%" in said
    assert "give agent more replicas (engines.agent.replicas, 2 now), or user fewer" in said
    assert "2.4 of agent to one of user" in said
    assert bottleneck(session) == "the agent's engine"


def test_an_engine_with_one_replica_cannot_have_fewer() -> None:
    said = only(session_of({"user": engine_of(0.3), "agent": engine_of(0.95)}))
    assert "fewer" not in said
    assert "3.2 of agent to one of user" in said


@pytest.mark.parametrize("other", [0.97, 0.75])
def test_full_engines_are_told_as_the_limit(other: float) -> None:
    session = session_of({"user": engine_of(other), "agent": engine_of(0.98)})
    said = only(session)
    assert "as fast as it gets" in said
    assert "engines.agent.replicas, 1 now" in said
    assert bottleneck(session) == "the agent's engine"


def test_an_engine_that_both_share_is_named_after_both() -> None:
    session = session_of({"writer": engine_of(0.95)})
    assert bottleneck(session) == "the user and agent's engine"
    assert "engines.writer.replicas" in only(session)


def test_a_full_endpoint_is_not_told_to_have_more_replicas() -> None:
    said = only(session_of({"writer": engine_of(0.95, kind="openai")}))
    assert "engines.writer.max_running" in said
    assert "replicas" not in said


def test_what_is_given_up_at_its_deadline_is_told_before_all_that_costs_more() -> None:
    slow = engine_of(0.97, finished=61, failed=30, overdue=28)
    said = [str(one) for one in advise(session_of({"writer": slow}))]
    assert said[0].startswith("28 of 91 requests to writer were given up at their deadline: ")
    assert "engines.writer.turn_deadline_s" in said[0]
    assert len(said) == 2
    steady = engine_of(0.97, finished=1000, failed=30, overdue=28)
    assert "deadline" not in only(session_of({"writer": steady}))


def test_idle_engines_want_more_dialogues_at_once() -> None:
    idle = {"user": engine_of(0.3, replicas=2), "agent": engine_of(0.4, replicas=2)}
    session = session_of(idle, walkers_of(seconds=60_000.0))
    said = only(session)
    assert "no engine had more than 40% of its places in use, with 100 dialogues at once" in said
    assert "walkers.alive, 100 each now" in said
    assert bottleneck(session) == "too few dialogues at once"


def test_where_there_were_no_more_dialogues_to_play_more_of_them_are_the_advice() -> None:
    session = session_of({"writer": engine_of(0.4)}, wanted=90, before=20)
    assert "there were only 70 dialogues for 100 places: more (run.dialogues)" in only(session)


def test_idle_engines_with_dialogues_enough_are_not_told_to_have_more() -> None:
    assert advise(session_of({"writer": engine_of(0.4)}, walkers_of(seconds=90_000.0))) == []


def test_a_walker_that_has_a_whole_core_comes_first() -> None:
    session = session_of(FULL_AND_IDLE, walkers_of(share=0.97, checks=0.4))
    first, second = advise(session)
    assert "a walker had 97% of a core" in first.seen
    assert "walkers.count, 2 now" in first.change
    assert "engines.agent.replicas" in second.change  # and not the checks, which wait for the core
    assert bottleneck(session) == "the walkers"


def test_a_loop_that_is_late_without_a_core_of_its_own_wants_cores() -> None:
    walkers = walkers_of().model_copy(update={"lag_s": 0.6})
    session = session_of({"writer": engine_of(0.4)}, walkers)
    said = only(session)
    assert "0.6 s late on average, with 30% of a core" in said
    assert "walkers.alive" in said


@pytest.mark.parametrize(
    ("phase", "seen", "change"),
    [
        ("retrieval", "the retrievers took 30%", "walkers.retrievers"),
        ("tools", "the domain's tools took 30%", "make them answer faster"),
        ("checks", "the checks took 30%", "walkers.count"),
        ("prompt", "the prompts took 30%", "walkers.count"),
        ("transport", "the way to the engines took 30%", "walkers.count"),
        ("rest", "sinks and the walkers' event loops took 30%", "walkers.sinks"),
    ],
)
def test_what_is_slow_beside_the_engines_is_named(phase: str, seen: str, change: str) -> None:
    session = session_of({"writer": engine_of(0.4)}, walkers_of(**{phase: 0.3}))
    said = only(session)
    assert seen in said
    assert change in said
    assert bottleneck(session) in seen


def test_a_full_kv_cache_and_few_hits_want_memory_or_fewer_dialogues() -> None:
    figures: dict[str, Any] = {"finished": 10, "prompt_tokens": 6000, "cached_tokens": 1200}
    full = engine_of(0.7, gpus=1.0, kv_s=580.0, preemptions=7, **figures)
    said = [str(one) for one in advise(session_of({"writer": full}))]
    assert len(said) == 2
    assert "KV cache was 97% full, and 7 requests were put out of it" in said[0]
    assert "engines.writer.vllm.gpu_memory_utilization" in said[0]
    assert "prefix cache had 20% of what was read" in said[1]
    assert "walkers.alive" in said[1]
    on_cpu = engine_of(0.7, kv_s=580.0, preemptions=7, **figures)
    assert "engines.writer.kv_cache_gb" in str(advise(session_of({"writer": on_cpu}))[0])


@pytest.mark.parametrize(
    "fine",
    [
        {"kv_s": 580.0},  # full, and nobody had to go
        {"finished": 100, "prompt_tokens": 6000},  # prompts too short to be worth keeping
        {"finished": 10, "prompt_tokens": 6000, "cached_tokens": 3000},
    ],
)
def test_caches_that_do_their_work_are_passed_over(fine: dict[str, Any]) -> None:
    assert advise(session_of({"writer": engine_of(0.7, **fine)})) == []


def test_gpus_that_were_held_to_start_up_are_told() -> None:
    engine = engine_of(0.7, gpus=1.0, placed_s=1000.0)
    said = only(session_of({"writer": engine}, starting_s=800.0))
    assert "57% of the time went into starting, with the GPUs held" in said
    assert advise(session_of({"writer": engine_of(0.7)}, starting_s=800.0)) == []


def test_nothing_stands_out_where_engines_are_well_in_use() -> None:
    session = session_of({"user": engine_of(0.7), "agent": engine_of(0.75)})
    assert (advise(session), bottleneck(session)) == ([], "")


@pytest.mark.parametrize(
    "short",
    [
        session_of(FULL_AND_IDLE, playing_s=20.0),
        session_of(FULL_AND_IDLE, walkers_of().model_copy(update={"turns": {"user": 50}})),
        session_of({"user": engine_of(0.0, seconds=0.0)}),
        session_of({}),
    ],
)
def test_too_little_to_tell_is_silence(short: Session) -> None:
    assert (advise(short), bottleneck(short)) == ([], "")
