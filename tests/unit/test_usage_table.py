"""The final table of a generation, the line while it goes on, and the report's section."""

from __future__ import annotations

from actors.walker import WalkerStats
from cluster.progress import WIDTH, Load, Snapshot, line, load_of
from cluster.report_usage import usage
from cluster.usage import WalkersUse
from cluster.usage_table import all_together, cost, session_lines
from specs.engine import EngineStats
from tests.unit.usage_samples import engine_of, session_of, walkers_of

GPUS = {
    "user": engine_of(
        0.41, 2, gpus=1.0, price=2.0, placed_s=1800.0, completion_tokens=60_000, finished=3000,
        prompt_tokens=1000, cached_tokens=700, decode_s=6000.0,
    ),
    "agent": engine_of(
        0.97, 2, gpus=2.0, price=3.0, placed_s=900.0, full_s=540.0, waiting_s=3000.0
    ),
}  # fmt: skip


def test_the_final_table_says_time_speed_use_money_and_what_to_change() -> None:
    walkers = walkers_of(share=0.2, seconds=60_000.0, queue=0.25, retrieval=0.05).model_copy(
        update={"retries": {"candidates": 1200}, "given_back": 3, "cpu_s": 20.0, "lag_s": 0.002}
    )
    lines = session_lines(session_of(GPUS, walkers))
    assert lines[0] == (
        "it took 10m30s (starting 30s, playing 10m00s): 1,000 dialogues, 20,000 turns "
        "(33.3 a second)"
    )
    head, user, agent = (text.split("  ") for text in lines[1:4])
    columns = [cell.strip() for cell in head if cell.strip()]
    assert columns == [
        "engine", "replicas", "tokens/s", "a replica", "in use", "full", "waiting",
        "prefix cache", "KV cache", "GPU-hours", "EUR",
    ]  # fmt: skip
    assert [cell.strip() for cell in user if cell.strip()] == [
        "user", "2", "200", "100", "41%", "0%", "0.00", "70%", "-", "1.00", "2.00",
    ]  # fmt: skip
    assert [cell.strip() for cell in agent if cell.strip()] == [
        "agent", "2", "0.00", "0.00", "97%", "90%", "5.00", "-", "-", "1.00", "3.00",
    ]  # fmt: skip
    text = "\n".join(lines)
    assert "a user's turn took 3.00 s: decode 70%, queue 25%, retrieval 5%" in text
    assert "an agent's turn took 3.00 s" in text
    assert "asked again: 1,200 for more candidates" in text
    assert "3 dialogues given back" in text
    assert "20% of a core each" in text
    assert "1.00 ms of CPU a turn, late by 2 ms" in text
    assert "what held it up: the agent's engine" in text
    assert "engines.agent.replicas" in text
    assert "tokens/s by role" not in text  # each has an engine of its own
    assert len(set(map(len, lines[1:4]))) == 1  # aligned


def test_roles_of_one_engine_have_their_speeds() -> None:
    walkers = walkers_of().model_copy(update={"tokens": {"agent": 60_000, "user": 6000}})
    lines = session_lines(session_of({"writer": engine_of(0.7)}, walkers))
    assert "  tokens/s by role: user 10.0, agent 100" in lines


def test_starts_are_added_up_and_money_only_where_all_of_it_is_known() -> None:
    one = session_of(GPUS, number=1)
    lines = session_lines(one.model_copy(update={"number": 2}), [one])
    assert lines[-1] == (
        "all 2 starts together: 21m00s, 2,000 dialogues, 4.00 GPU-hours, EUR 10.00"
    )
    free = session_of({"e": engine_of(0.7, gpus=1.0, placed_s=3600.0)})
    assert cost([one]) == "EUR 5.00"
    assert cost([one, free]) == ""
    assert "GPU-hours" in all_together([one, free])
    assert cost([one, one.model_copy(update={"currency": "USD"})]) == ""
    assert cost([session_of()]) == ""


def test_a_start_that_played_nothing_says_how_long_it_took() -> None:
    lines = session_lines(session_of({}, WalkersUse(), starting_s=12.0, playing_s=0.0))
    assert lines == ["it took 12s (starting 12s): 0 dialogues, 0 turns"]


# -- while it goes on


def stats(turns: int, tokens: int, given_back: int = 0) -> WalkerStats:
    made = WalkerStats(alive=4, given_back=given_back)
    made.said["user", "model"] = turns - turns // 4
    made.said["user", "reference"] = turns // 4
    made.tokens["user"] = tokens
    return made


def snapshot(turns: int, elapsed_s: float, **engines: Load) -> Snapshot:
    return Snapshot(
        1000, 120, 100, 880, 2, [stats(turns, 10 * turns, 3)], engines, elapsed_s, "EUR 12.50"
    )


def test_the_line_has_speeds_since_the_one_before_and_each_engine_s_load() -> None:
    agent = load_of(
        [
            EngineStats(running=40, limit=40, waiting=7, kv_cache_use=0.8),
            EngineStats(running=8, waiting=0, kv_cache_use=0.4),
            EngineStats(away="it is loading"),
        ],
        places=48,
        wanted=4,
    )
    assert str(agent) == "48/88+7 kv 60% (2 of 4 up)"
    assert str(load_of([EngineStats(running=3)], 48, 1)) == "3/48+0"
    said = line(snapshot(400, 20.0, agent=agent), snapshot(100, 10.0))
    assert said == (
        "dialogues 120/1000  turns 400  30.0 turns/s  300 tokens/s  references 25%  "
        "agent 48/88+7 kv 60% (2 of 4 up)  given back 3  given up 2  EUR 12.50  left 13m18s"
    )


def test_a_line_too_long_leaves_out_what_matters_least() -> None:
    loads = {f"engine_{n}": Load(999, 1000, 100, 0.99, 7, 8) for n in range(3)}
    said = line(snapshot(1_000_000, 1e6, **loads), None)
    assert len(said) <= WIDTH
    assert "turns 1000000" not in said
    for kept in ("dialogues 120/1000", "turns/s", "engine_0", "given up 2", "left"):
        assert kept in said
    many = {f"engine_{n}": Load(999, 1000, 100, 0.99, 7, 8) for n in range(30)}
    said = line(snapshot(10, 1.0, **many), None)
    assert len(said) <= WIDTH
    assert said.startswith("dialogues 120/1000")
    assert "left" in said


# -- in the report


def test_the_report_has_every_start_and_the_longest_in_detail() -> None:
    short = session_of({"user": engine_of(0.5)}, number=1, playing_s=5.0, end="")
    section = usage([short, session_of(GPUS, number=2)], ["warning: half a file"])
    starts, engines, turns, replicas = section.tables
    assert [row[0] for row in starts.rows] == ["1", "2"]
    assert [row[-1] for row in starts.rows] == ["was killed, or goes on", "all was played"]
    assert all(len(row) == len(starts.head) for row in starts.rows)
    assert [row[0] for row in engines.rows] == ["user", "agent"]
    assert engines.caption == "Engines (start 2)"
    assert [row[0] for row in turns.rows] == ["user", "agent"]
    assert all(len(row) == len(turns.head) for row in turns.rows)
    assert len(replicas.rows) == 4
    assert replicas.rows[0][-3:] == ["0 ms", "0 ms", "2.00 s"]  # user's, of 3,000 answers each
    assert all(len(row) == len(replicas.head) for row in replicas.rows)
    assert section.text.startswith("All 2 starts together: ")
    assert "What held it up: the agent's engine. The agent's engine had 97%" in section.text
    assert section.warning == "warning: half a file"


def test_the_report_of_a_run_without_notes_says_so() -> None:
    section = usage([])
    assert section.missing
    assert not section.tables
