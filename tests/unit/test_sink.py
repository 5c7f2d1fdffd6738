from __future__ import annotations

import asyncio
import errno
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.sink import LoggedTurn, SinkActor, SinkCore, SinkLimits
from actors.turn_log import LogContents, end_entry, read_log, turn_entry, write_log
from specs.errors import DuologueError, InputError
from specs.parts import Folder, part_names, read_dialogues
from specs.records import Dialogue
from tests.unit.durable_samples import (
    Crash,
    cut,
    ended,
    faulty_folder,
    indices_in,
    log,
    make_dialogue,
    make_turn,
    sink,
)


def said(index: int, epoch: int, *numbers: int, text: str = "") -> list[LoggedTurn]:
    return [LoggedTurn(index, f"walk-{index}", epoch, make_turn(n, text)) for n in numbers]


def logged(folder: Folder) -> LogContents:
    return read_log(folder.child("log"))


def rows(folder: Folder) -> list[int]:
    return indices_in(folder.child("dialogues"))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder.of(tmp_path / "round-0")


def test_a_dialogue_goes_through_the_log_into_a_part_and_the_log_is_deleted(
    folder: Folder,
) -> None:
    core = sink(folder, rows=2)
    assert core.turns(said(0, 1, 0, 1)) == ()
    log(core)
    assert [core.finish(make_dialogue(i), 1) for i in (1, 0)] == ["stored", "stored"]
    log(core)
    assert logged(folder).finished[0].dialogue == make_dialogue(0)
    assert core.part_due
    cut(core)
    assert list(read_dialogues(folder.child("dialogues"))) == [make_dialogue(0), make_dialogue(1)]
    core.leave()
    assert folder.child("log").names() == []


def test_a_log_file_stays_while_it_speaks_of_an_unfinished_dialogue(folder: Folder) -> None:
    core = sink(folder)
    core.turns(said(5, 1, 0, 1))
    core.finish(make_dialogue(1), 1)
    cut(core)
    assert len(folder.child("log").names("log-")) == 1
    core.finish(make_dialogue(5), 1)
    cut(core)
    assert folder.child("log").names("log-") == []
    assert rows(folder) == [1, 5]


def test_parts_are_cut_by_bytes(folder: Folder) -> None:
    core = SinkCore(folder, 0, 1, SinkLimits(part_bytes=1), "t")
    core.open()
    assert not core.part_due
    core.finish(make_dialogue(0), 1)
    log(core)
    assert core.part_due


def test_indices_it_has_and_old_leases_are_refused(folder: Folder) -> None:
    core = sink(folder)
    assert core.begin(3, "walk-3", 7).status == "play"
    assert core.finish(make_dialogue(3), 6) == "stale"
    assert core.turns(said(3, 6, 0)) == (3,)
    assert core.begin(3, "walk-3", 6).status == "stale"
    assert core.finish(make_dialogue(3), 7) == "stored"
    assert core.finish(make_dialogue(3), 7) == "duplicate"
    log(core)
    assert core.finish(make_dialogue(3), 8) == "duplicate"
    assert core.begin(3, "walk-3", 9).status == "stored"
    assert core.turns(said(3, 9, 0)) == (3,)
    cut(core)
    assert sink(folder).finish(make_dialogue(3), 9) == "duplicate"
    assert rows(folder) == [3]


def test_an_index_of_another_sink_is_a_mistake(folder: Folder) -> None:
    core = sink(folder, number=1, sinks=2)
    core.finish(make_dialogue(1), 1)
    cut(core)
    with pytest.raises(ValueError, match="index 0 is not of sink 1 of 2"):
        core.begin(0, "walk-0", 1)


def test_an_unfinished_dialogue_goes_on_from_its_log(folder: Folder) -> None:
    core = sink(folder)
    core.turns(said(0, 1, 0, 1, 2))
    log(core)
    again = SinkCore(folder, 0, 1, SinkLimits(), "again")
    found = again.open()
    assert list(found.durable) == []
    begun = again.begin(0, "walk-0", 2)
    assert begun.turns == make_dialogue(0, turns=3).turns
    again.turns(said(0, 2, 3))
    again.finish(make_dialogue(0, turns=5), 2)
    cut(again)
    assert list(read_dialogues(folder.child("dialogues"))) == [make_dialogue(0, turns=5)]


def test_turns_of_a_dialogue_begun_anew_never_mix_with_its_former_self(folder: Folder) -> None:
    core = sink(folder)
    core.turns(said(0, 1, 0, 1, 2, 3))
    log(core)
    core.turns(said(0, 2, 0, text="another beginning"))
    log(core)
    (unfinished,) = logged(folder).unfinished.values()
    assert [turn.text for turn in unfinished.turns] == ["another beginning"]
    shorter = make_dialogue(0, turns=2)
    assert core.finish(shorter, 2) == "stored"
    log(core)
    assert logged(folder).finished[0] == ended(shorter, 2)


def test_a_dialogue_shorter_than_what_was_logged_is_finished_all_the_same(folder: Folder) -> None:
    core = sink(folder)
    core.turns(said(0, 1, 0, 1, 2, 3))
    log(core)
    assert core.finish(make_dialogue(0, turns=2), 2) == "stored"
    log(core)
    assert logged(folder).finished[0].dialogue == make_dialogue(0, turns=2)


def test_an_end_comes_without_the_turns_that_went_ahead(folder: Folder) -> None:
    core = sink(folder)
    dialogue = make_dialogue(0, turns=3)
    bare = replace(dialogue, turns=())
    core.turns(said(0, 1, 0, 1))
    assert core.finish(bare, 1, told=3) == "incomplete"  # it has died since the third
    assert core.finish(bare, 0, told=2) == "stale"
    core.turns(said(0, 1, 2))
    assert core.finish(bare, 1, told=3) == "stored"
    assert core.finish(bare, 1, told=3) == "duplicate"
    cut(core)
    assert list(read_dialogues(folder.child("dialogues"))) == [dialogue]


def test_two_walkers_turns_are_never_mixed_by_a_sink_that_forgot_the_later_one(
    folder: Folder,
) -> None:
    first = sink(folder)
    first.turns(said(0, 5, 0))
    log(first)
    assert len(first.begin(0, "walk-0", 9).turns) == 1
    assert first.turns(said(0, 9, 1)) == ()  # and it dies before that is in the log
    again = sink(folder)
    assert again.turns(said(0, 5, 1, text="too late")) == ()
    assert again.turns(said(0, 9, 2)) == ()  # whose turn 1 is another one
    log(again)
    assert [turn.text for turn in logged(folder).unfinished[0].turns] == ["utterance 0", "too late"]
    dialogue = make_dialogue(0, turns=3)
    assert again.finish(replace(dialogue, turns=()), 9, told=3) == "incomplete"
    assert again.finish(dialogue, 9) == "stored"
    log(again)
    assert logged(folder).finished[0].dialogue.turns == dialogue.turns


def test_turns_of_another_walk_are_not_gone_on_with(folder: Folder) -> None:
    core = sink(folder)
    core.turns(said(0, 1, 0, 1))
    assert core.begin(0, "another walk", 2).turns == ()


def test_a_truncated_log_file_is_said_and_skipped(folder: Folder, tmp_path: Path) -> None:
    core = sink(folder)
    core.turns(said(0, 1, 0))
    log(core)
    core.turns(said(0, 1, 1))
    log(core)
    last = folder.child("log").names("log-")[-1]
    path = tmp_path / "round-0" / "log" / last
    path.write_bytes(path.read_bytes()[:-9])
    again = SinkCore(folder, 0, 1, SinkLimits(), "again")
    found = again.open()
    assert [turn.index for turn in again.begin(0, "walk-0", 2).turns] == [0]
    assert len(found.warnings) == 1
    assert last in found.warnings[0]


def test_an_end_without_all_its_turns_is_no_end(folder: Folder) -> None:
    log_folder = folder.child("log")
    log_folder.create()
    dialogue = make_dialogue(0)
    entries = [turn_entry(0, "walk-0", 1, turn) for turn in dialogue.turns if turn.index != 1]
    write_log(log_folder, "log-000of001-000000001-x.parquet", [*entries, end_entry(dialogue, 1, 4)])
    contents = read_log(log_folder)
    assert contents.finished == {}
    assert len(contents.unfinished[0].turns) == 1


def test_words_that_parquet_cannot_hold_do_not_stop_a_sink(folder: Folder) -> None:
    core = sink(folder)
    odd = replace(
        make_dialogue(0), turns=(make_turn(0, "half \ud83c a smile, 半分"),), error="\udfff"
    )
    core.finish(odd, 1)
    cut(core)
    (found,) = read_dialogues(folder.child("dialogues"))
    assert (found.turns[0].text, found.error) == ("half ? a smile, 半分", "?")


def test_another_number_of_sinks_takes_over_and_cleans_up(folder: Folder) -> None:
    before = [sink(folder, number, 2) for number in range(2)]
    for index in range(6):
        before[index % 2].turns(said(index, 1, 0))
    for index in (0, 1):
        before[index].finish(make_dialogue(index), 1)
        log(before[index])
    after = [sink(folder, number, 3) for number in range(3)]
    assert [sorted(core.recovered().durable) for core in after] == [[0], [1], []]
    assert [core.stats().open_dialogues for core in after] == [1, 1, 2]
    for index in range(2, 6):
        core = after[index % 3]
        assert len(core.begin(index, f"walk-{index}", 2).turns) == 1
        core.finish(make_dialogue(index), 2)
    for core in after:
        cut(core)
        core.leave()
    assert sorted(rows(folder)) == list(range(6))
    assert folder.child("log").names() == []


Steps = list[tuple[str, int, int]]

_steps = st.lists(
    st.tuples(
        st.sampled_from(["turns", "finish", "log", "cut", "begin"]),
        st.integers(0, 5),
        st.integers(1, 4),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(lives=st.lists(st.tuples(_steps, st.integers(1, 20)), min_size=1, max_size=4))
def test_a_crash_anywhere_makes_no_second_row_and_loses_nothing_answered(
    lives: list[tuple[Steps, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Each life of the sink ends at its n-th step of writing, whichever that is."""
    path = tmp_path_factory.mktemp("round")
    answered: set[int] = set()
    for steps, crash_at in lives:
        left = [crash_at]

        def fault(step: str, at: str, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == 0:
                raise Crash

        try:
            _live(sink(faulty_folder(path, fault), rows=3), steps, answered)
        except Crash:
            continue
    final = sink(Folder.of(path))
    assert answered <= set(final.recovered().durable)
    for index in range(6):
        stored = final.finish(make_dialogue(index), 9)
        assert (stored == "duplicate") == (index in final.recovered().durable)
    cut(final)
    assert sorted(rows(Folder.of(path))) == list(range(6))
    found = read_dialogues(Folder.of(path).child("dialogues"))
    assert all(dialogue == make_dialogue(dialogue.index) for dialogue in found)
    final.leave()
    assert Folder.of(path).child("log").names() == []


def _live(core: SinkCore, steps: Steps, answered: set[int]) -> None:
    waiting: set[int] = set()
    for step, index, number in steps:
        if step == "begin":
            core.begin(index, f"walk-{index}", number)
        elif step == "turns":
            core.turns(said(index, number, *range(number)))
        elif step == "finish":
            if core.finish(make_dialogue(index), number) == "stored":
                waiting.add(index)
        else:
            (log if step == "log" else cut)(core)
            answered |= waiting


# --- the actor, without Ray ---------------------------------------------------------------------


def quick(folder: Folder, rows: int = 100, interval: float = 0.01) -> SinkActor:
    return SinkActor(folder, 0, 1, SinkLimits(rows, log_interval_s=interval))


async def test_finish_answers_when_the_dialogue_is_durable(folder: Folder) -> None:
    actor = quick(folder)
    assert await actor.turns(said(0, 1, 0)) == ()
    assert await actor.finish(make_dialogue(0), 1) == "stored"
    assert 0 in logged(folder).finished
    assert await actor.finish(make_dialogue(0), 1) == "duplicate"
    assert (await actor.begin(0, "walk-0", 2)).status == "stored"
    assert list((await actor.open()).durable) == [0]
    await actor.close()
    await actor.close()
    assert rows(folder) == [0]
    assert folder.child("log").names() == []
    with pytest.raises(DuologueError, match="closed"):
        await actor.finish(make_dialogue(1), 1)


async def test_many_at_once_become_parts_of_the_wanted_size(folder: Folder) -> None:
    actor = quick(folder, rows=20)
    answers = await asyncio.gather(*(actor.finish(make_dialogue(i), 1) for i in range(50)))
    assert set(answers) == {"stored"}
    await actor.flush()
    await actor.close()
    assert sorted(rows(folder)) == list(range(50))


async def test_close_answers_those_who_wait(folder: Folder) -> None:
    actor = quick(folder, interval=3600.0)
    await actor.open()
    waiting = asyncio.create_task(actor.finish(make_dialogue(0), 1))
    await asyncio.sleep(0)
    await actor.close()
    assert await waiting == "stored"
    assert rows(folder) == [0]


async def test_close_asked_a_second_time_waits_for_the_first(tmp_path: Path) -> None:
    gate, reached = threading.Event(), threading.Event()

    def fault(step: str, path: str) -> None:
        if step == "written" and "part-" in path:
            reached.set()
            gate.wait(30)

    actor = quick(faulty_folder(tmp_path, fault))
    await actor.finish(make_dialogue(0), 1)
    first = asyncio.create_task(actor.close())
    await asyncio.to_thread(reached.wait, 30)
    again = asyncio.create_task(actor.close())
    for _ in range(10):  # it has had its turn, and has not answered
        await asyncio.sleep(0)
    assert not again.done()
    gate.set()
    await asyncio.gather(first, again)
    assert rows(Folder.of(tmp_path)) == [0]


class Waits:
    """A clock that goes on only while a sink waits; at each pause the sink is asked how it is."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []
        self.told: list[str] = []

    async def sleep(self, seconds: float) -> None:
        stats = await self._actor.stats()
        self.told.append(stats.outage)
        assert stats.outage_s == self.now
        self.pauses.append(seconds)
        self.now += seconds

    def sink(self, folder: Folder, outage_s: float = 600.0) -> SinkActor:
        limits = SinkLimits(100, log_interval_s=0.01, outage_s=outage_s)
        self._actor = SinkActor(folder, 0, 1, limits, 0, lambda: self.now, self.sleep)
        return self._actor


class Failing:
    """Writes fail at a step as long as it has failures left."""

    def __init__(self, times: int, code: int = errno.ENOSPC, step: str = "moved") -> None:
        self.times, self._code, self._step = times, code, step

    def __call__(self, step: str, path: str) -> None:
        ours = step == "created" or path.endswith(".parquet")
        if (
            ours and step == self._step and self.times > 0
        ):  # `moved`: it is there, the answer is an error
            self.times -= 1
            raise OSError(self._code, "injected")


@pytest.mark.parametrize(
    ("code", "step", "times"),
    [
        (errno.ENOSPC, "moved", 7),
        (errno.EROFS, "open", 7),
        (errno.EACCES, "written", 7),
        (errno.EIO, "open", 7),
        (errno.ESTALE, "deleted", 1),  # what fails so is gone, and is not asked for again
    ],
)
async def test_an_outage_of_the_store_passes_without_a_second_row(
    tmp_path: Path, code: int, step: str, times: int
) -> None:
    waits = Waits()
    failing = Failing(times, code, step)
    actor = waits.sink(faulty_folder(tmp_path, failing))
    await actor.open()
    assert await asyncio.gather(*(actor.finish(make_dialogue(i), 1) for i in (0, 1))) == [
        "stored",
        "stored",
    ]
    await actor.close()
    assert failing.times == 0
    assert waits.pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0][:times]
    assert all("cannot be" in text for text in waits.told)
    stats = await actor.stats()
    assert (stats.outage, stats.outage_s, stats.outages) == ("", 0.0, 1)
    assert stats.log_delay_s == (0.0 if step == "deleted" else sum(waits.pauses))
    assert (stats.rows, stats.stored) == (2, 2)
    assert stats.bytes > 0
    assert rows(Folder.of(tmp_path)) == [0, 1]
    assert Folder.of(tmp_path).child("log").names() == []


async def test_an_outage_that_stays_is_told_to_all_who_wait_and_what_is_durable_stays(
    tmp_path: Path,
) -> None:
    actor = quick(Folder.of(tmp_path))
    await actor.finish(make_dialogue(0), 1)
    await actor.close()
    waits = Waits()
    actor = waits.sink(faulty_folder(tmp_path, Failing(99)), outage_s=100.0)
    await actor.open()
    answers = await asyncio.gather(
        *(actor.finish(make_dialogue(i), 1) for i in (1, 2)), return_exceptions=True
    )
    assert all(type(answer) is DuologueError for answer in answers)
    assert "the disk is full (for 100 s now)" in str(answers[0])
    assert answers[0] is not answers[1]
    assert sum(waits.pauses) == 100.0
    with pytest.raises(DuologueError, match="the disk is full"):
        await actor.turns(said(3, 1, 0))
    assert "the disk is full" in (await actor.stats()).outage
    assert part_names(Folder.of(tmp_path).child("dialogues"))


async def test_what_cannot_be_written_at_the_start_is_refused_at_once(tmp_path: Path) -> None:
    waits = Waits()
    actor = waits.sink(faulty_folder(tmp_path, Failing(1, errno.EROFS, "created")))
    with pytest.raises(InputError, match="the disk is read-only"):
        await actor.open()
    assert waits.pauses == []


async def test_a_sink_that_comes_back_into_an_outage_waits_for_its_end(tmp_path: Path) -> None:
    first = quick(Folder.of(tmp_path))
    await first.turns(said(1, 1, 0))
    await first.finish(make_dialogue(0), 1)
    await first.flush()
    waits = Waits()
    actor = waits.sink(faulty_folder(tmp_path, Failing(3, errno.EIO, "read")))
    assert (await actor.begin(0, "walk-0", 2)).status == "stored"
    assert len((await actor.begin(1, "walk-1", 2)).turns) == 1
    assert waits.pauses == [1.0, 2.0]  # a file that fails is looked at twice


async def test_a_write_that_hangs_is_an_outage_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()

    def fault(step: str, path: str) -> None:
        if step == "open" and "log-" in path:
            gate.wait(30)

    monkeypatch.setattr("actors.outage.MOST_S", 0.0)
    limits = SinkLimits(100, log_interval_s=0.01, outage_s=0.05)
    actor = SinkActor(faulty_folder(tmp_path, fault), 0, 1, limits)
    await actor.open()
    with pytest.raises(DuologueError, match="the store does not answer"):
        await actor.finish(make_dialogue(0), 1)
    gate.set()


async def test_a_mistake_is_no_outage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*arguments: object) -> None:
        raise ValueError("no such column")

    waits = Waits()
    actor = waits.sink(Folder.of(tmp_path))
    await actor.open()
    monkeypatch.setattr("actors.sink_core.write_log", wrong)
    with pytest.raises(DuologueError, match="no such column"):
        await actor.finish(make_dialogue(0), 1)
    assert waits.pauses == []


async def test_turns_wait_while_the_log_cannot_be_written(tmp_path: Path) -> None:
    paused, gate = asyncio.Event(), asyncio.Event()

    async def sleep(seconds: float) -> None:
        paused.set()
        await gate.wait()

    limits = SinkLimits(100, log_interval_s=0.01, log_bytes=1000)
    actor = SinkActor(faulty_folder(tmp_path, Failing(1)), 0, 1, limits, sleep=sleep)
    await actor.turns(said(0, 1, 0))
    await paused.wait()
    waiting = asyncio.create_task(actor.turns(said(1, 1, *range(40))))
    assert "the disk is full" in (await actor.stats()).outage
    await asyncio.wait([waiting], timeout=0.1)
    assert not waiting.done()
    gate.set()
    assert await waiting == ()
    await actor.close()
    assert sorted(logged(Folder.of(tmp_path)).unfinished) == [0, 1]


async def test_the_event_loop_runs_on_while_a_file_is_written(tmp_path: Path) -> None:
    running, gate = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def fault(step: str, path: str) -> None:
        if step == "written" and "log-" in path:
            loop.call_soon_threadsafe(running.set)
            asyncio.run_coroutine_threadsafe(gate.wait(), loop).result(30)

    actor = quick(faulty_folder(tmp_path, fault))
    waiting = asyncio.create_task(actor.finish(make_dialogue(0), 1))
    await asyncio.wait_for(running.wait(), 30)
    assert await actor.turns(said(1, 1, 0)) == ()
    assert not waiting.done()
    gate.set()
    assert await waiting == "stored"
    await actor.close()


def test_a_dialogue_numbered_with_gaps_is_a_mistake(folder: Folder) -> None:
    wrong: Dialogue = replace(make_dialogue(0), turns=(make_turn(1),))
    with pytest.raises(ValueError, match="not numbered"):
        sink(folder).finish(wrong, 1)
