from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.fence import Fenced
from actors.sink import SinkActor, SinkCore, SinkLimits
from specs.errors import DuologueError
from specs.parts import Folder, part_names, read_dialogues, read_rows
from specs.records import dialogue_schema
from tests.unit.durable_samples import (
    cut,
    faulty_folder,
    indices_in,
    log,
    make_dialogue,
    sink,
)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder.of(tmp_path / "round-0")


@pytest.mark.parametrize("sinks", [2, 1, 3])
def test_after_its_successor_has_opened_nothing_of_a_sink_appears(
    folder: Folder, sinks: int
) -> None:
    old = sink(folder, 1, 2)
    old.finish(make_dialogue(1), 1)
    log(old)
    old.finish(make_dialogue(3), 1)
    after = [sink(folder, number, sinks, start=2) for number in range(sinks)]
    assert [core.has(1) for core in after].count(True) == 1
    before = folder.child("log").names("log-")
    with pytest.raises(Fenced, match=r"a later start of this run \(number 2\)"):
        log(old)
    with pytest.raises(Fenced):
        cut(old)
    with pytest.raises(Fenced):
        old.delete_logs(before)
    assert folder.child("log").names("log-") == before
    assert part_names(folder.child("dialogues")) == []


def test_a_sink_of_an_earlier_start_never_opens_after_a_later_one(folder: Folder) -> None:
    new = sink(folder, 0, 2, start=2)
    for sinks in (2, 3):
        with pytest.raises(Fenced, match="a later start"):
            sink(folder, 0, sinks, start=1)
    new.finish(make_dialogue(0), 1)
    cut(new)
    new.leave()
    assert folder.child("log").names() == []


def test_an_owner_file_that_cannot_be_read_is_nobodys(folder: Folder) -> None:
    old = sink(folder)
    (name,) = folder.child("log").names("sink-")
    for index, data in enumerate((b"", b"[]", b'{"start": 1', b'{"start": "x", "token": "x"}')):
        folder.child("log").write_bytes(name, data)
        old.finish(make_dialogue(index), 1)
        with pytest.raises(Fenced, match="another sink"):
            log(old)
    sink(folder)


_steps = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from(["open", "finish", "log", "cut"])), max_size=30
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=_steps)
def test_incarnations_that_write_in_any_order_make_no_second_row(
    steps: list[tuple[int, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Each finishes the same dialogues as often as it can; what one acknowledged stays."""
    folder = Folder.of(tmp_path_factory.mktemp("round"))
    cores: dict[int, SinkCore] = {}
    acknowledged: set[int] = set()
    for who, step in steps:
        try:
            if step == "open" or who not in cores:
                cores[who] = sink(folder)
            elif step == "finish":
                for index in range(4):
                    cores[who].finish(make_dialogue(index), 1)
            else:
                (log if step == "log" else cut)(cores[who])
            acknowledged |= {index for index in range(4) if cores[who].has(index)}
        except Fenced:
            del cores[who]
    last = sink(folder)
    assert acknowledged <= set(last.recovered().durable)
    cut(last)
    found = Counter(row["index"] for row in read_rows(folder.child("dialogues"), dialogue_schema()))
    assert set(found.values()) <= {1}
    assert acknowledged <= set(found)


@pytest.mark.parametrize("sinks", [1, 2])
@pytest.mark.parametrize("kind", ["log-", "part-"])
def test_a_file_about_to_appear_when_the_successor_opens_does_not(
    tmp_path: Path, sinks: int, kind: str
) -> None:
    folder = Folder.of(tmp_path)
    after: list[SinkCore] = []

    def fault(step: str, path: str) -> None:
        if step == "written" and kind in path and not after:
            after.extend(sink(folder, number, sinks, start=2) for number in range(sinks))

    old = sink(faulty_folder(tmp_path, fault))
    old.finish(make_dialogue(0), 1)
    with pytest.raises(DuologueError, match="renaming"):
        cut(old)
    assert after[0].finish(make_dialogue(0), 2) == ("stored" if kind == "log-" else "duplicate")
    cut(after[0])
    assert len(list(read_rows(folder.child("dialogues"), dialogue_schema()))) == 1


def test_of_an_object_stores_late_copy_readers_see_one_row(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    after: list[SinkCore] = []

    def fault(step: str, path: str) -> None:
        if step == "written" and "part-" in path and not after:
            half = Path(path).with_name(f"_{Path(path).name}")
            data = half.read_bytes()
            after.append(sink(folder, start=2))
            half.write_bytes(data)

    old = sink(faulty_folder(tmp_path, fault))
    old.finish(make_dialogue(0), 1)
    with pytest.raises(Fenced):
        cut(old)  # its part appears; the log, which its successor has read, stays
    cut(after[0])
    assert len(list(read_rows(folder.child("dialogues"), dialogue_schema()))) == 2
    for columns in (None, ["goal"]):
        assert [one.index for one in read_dialogues(folder.child("dialogues"), columns)] == [0]
    assert list(sink(folder, start=3).recovered().durable) == [0]


# --- the actor ----------------------------------------------------------------------------------


async def test_a_sink_whose_place_was_taken_ends_its_process_and_tells_who_waits(
    folder: Folder,
) -> None:
    left: list[int] = []
    limits = SinkLimits(log_interval_s=0.01)
    old = SinkActor(folder, 0, 1, limits, 1, leave=lambda: left.append(1))
    await old.finish(make_dialogue(0), 1)
    new = SinkActor(folder, 0, 1, limits, 1)
    assert list((await new.open()).durable) == [0]
    with pytest.raises(Fenced, match="another sink"):
        await old.finish(make_dialogue(1), 1)
    assert left == [1]
    assert await new.finish(make_dialogue(1), 1) == "stored"
    await new.close()
    assert sorted(indices_in(folder.child("dialogues"))) == [0, 1]


async def test_a_sink_of_an_earlier_start_gives_up_and_does_not_come_back_to_fight(
    folder: Folder,
) -> None:
    left: list[int] = []
    limits = SinkLimits(log_interval_s=0.01)
    old = SinkActor(folder, 0, 1, limits, 1, leave=lambda: left.append(1))
    await old.open()
    new = SinkActor(folder, 0, 1, limits, 2)
    await new.open()
    answers = await asyncio.gather(
        *(old.finish(make_dialogue(i), 1) for i in (0, 1)), return_exceptions=True
    )
    assert all(isinstance(answer, Fenced) for answer in answers)
    back = SinkActor(folder, 0, 1, limits, 1, leave=lambda: left.append(1))
    with pytest.raises(Fenced):  # as a walker's call meets it, after Ray's restart
        await back.finish(make_dialogue(0), 1)
    assert left == []
    assert await new.finish(make_dialogue(0), 1) == "stored"
    await new.close()
