"""What a run tells of itself at Ray's metrics endpoint, against what it has made."""

from __future__ import annotations

import contextlib
import re
import socket
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.crew import Crew
from cluster.generate import generate
from specs.run_file import load
from tests.ray.command import rows, run_file

WITHIN_S = 120.0
LATENCY = 0.06
LINE = re.compile(r"^ray_(duologue_\w+)\{(.*)\} (\S+)$", re.MULTILINE)
TAG = re.compile(r'(\w+)="([^"]*)"')

Series = tuple[str, dict[str, str], float]


@pytest.fixture
def endpoint() -> Iterator[str]:
    """A Ray of its own that tells its metrics every second."""
    ray = pytest.importorskip("ray")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        _metrics_export_port=port,
        _system_config={"metrics_report_interval_ms": 1000},
    )
    yield f"http://127.0.0.1:{port}/metrics"
    ray.shutdown()


def scraped(endpoint: str) -> list[Series]:
    with contextlib.suppress(OSError), urllib.request.urlopen(endpoint, timeout=10) as response:
        text = response.read().decode()
        return [
            (name, dict(TAG.findall(tags)), float(value))
            for name, tags, value in LINE.findall(text)
        ]
    return []


def total(series: list[Series], name: str, **tags: str) -> float:
    return sum(
        value
        for one, its, value in series
        if one == name and all(its.get(tag) == wanted for tag, wanted in tags.items())
    )


def until(holds: Callable[[list[Series]], bool], endpoint: str) -> list[Series]:
    """Return what is told once it holds, or after a while whatever is told then."""
    ends = time.monotonic() + WITHIN_S
    while True:
        series = scraped(endpoint)
        if holds(series) or time.monotonic() > ends:
            return series
        time.sleep(0.5)


def test_a_run_s_metrics_are_at_the_endpoint_and_right(
    endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Series] = []
    close = Crew.close

    def last_look(crew: Crew) -> None:
        """Look when all is played, before the actors go."""

        def whole(series: list[Series]) -> bool:
            said = total(series, "duologue_turns_total") + total(series, "duologue_retries_total")
            stored = total(series, "duologue_dialogues_total")
            return stored == 12 and total(series, "duologue_requests_total") == said

        told.extend(until(whole, endpoint))
        close(crew)

    @contextlib.contextmanager
    def joined(address: Any) -> Iterator[None]:
        yield

    monkeypatch.setattr(Crew, "close", last_look)
    monkeypatch.setattr("cluster.session.ray_session", joined)
    generate(load(run_file(tmp_path, dialogues=12, latency=LATENCY)), fresh=False)

    made = rows(tmp_path)
    turns = [turn for row in made.values() for turn in row["turns"]]
    assert len(made) == 12
    assert total(told, "duologue_dialogues_total", stop_reason="ended") == 12
    decode = {"phase": "decode"}
    for role, count in Counter(turn["role"] for turn in turns).items():
        assert total(told, "duologue_turns_total", role=role, source="reference") == count
        by_bound = {"role": role, **decode}
        assert total(told, "duologue_turn_seconds_bucket_total", **by_bound, le="0.05") == 0
        assert total(told, "duologue_turn_seconds_bucket_total", **by_bound, le="+Inf") == count
    # Of what was rejected the record of a turn has the words alone; it took its time, too.
    requests = len(turns) + total(told, "duologue_retries_total")
    assert requests > len(turns)
    assert total(told, "duologue_requests_total", engine="ref", outcome="answered") == requests
    assert total(told, "duologue_turn_seconds_total", **decode) == pytest.approx(requests * LATENCY)
    decoded = total(told, "duologue_request_seconds_total", engine="ref", **decode)
    assert decoded == pytest.approx(requests * LATENCY)
    tokens = sum(turn["completion_tokens"] for turn in turns)
    assert total(told, "duologue_completion_tokens_total", engine="ref") == tokens > 0
    assert total(told, "duologue_retriever_texts_total") > 0
    assert total(told, "duologue_sink_bytes_total") > 0
    for name in ("duologue_event_loop_lag_seconds", "duologue_waiting", "duologue_kv_cache_use"):
        assert any(one == name for one, _, _ in told), name
    actors = {tags["actor"] for _, tags, _ in told}
    assert {"ref-0", "sink-0", "sink-1", "retriever-0", "walker-0.1"} <= actors
