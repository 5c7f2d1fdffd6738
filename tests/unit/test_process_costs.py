"""The arithmetic behind the benches' costs: kinds, sums between samples, slopes."""

from __future__ import annotations

import pytest

from tests.bench.process_costs import Costs, Sample, kind_of, slope


def sample(at: float, **cpu: float) -> Sample:
    return Sample(at, cpu, {}, {})


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ("ray::WalkerActor", "walkers"),
        ("ray::SinkActor.turns", "sinks"),
        ("ray::ReplicaHost.call", "replicas"),
        ("ray::IDLE", "Ray"),
        ("/somewhere/raylet/raylet --raylet_socket_name=x", "raylet"),
        ("/somewhere/gcs/gcs_server --log_dir=x", "GCS"),
        ("python agent.py --raylet-name=/tmp/sockets/raylet", "Ray"),
        ("grep ray::WalkerActor", "Ray"),
    ],
)
def test_kinds_go_by_how_a_command_line_begins(command: str, kind: str) -> None:
    assert kind_of(command) == kind


def test_cpu_is_counted_between_two_times() -> None:
    costs = Costs([sample(10, walkers=1.0), sample(20, walkers=6.0, sinks=2.0)])
    assert costs.cpu(10, 20) == {"walkers": 5.0, "sinks": 2.0}
    assert costs.cpu(12, 14)["walkers"] == pytest.approx(1.0)
    assert costs.cpu(0, 99) == {"walkers": 5.0, "sinks": 2.0}


def test_no_samples_are_no_cpu() -> None:
    assert Costs().cpu(0, 1) == {}


def test_the_slope_of_a_line_is_its_own() -> None:
    assert slope([(x, 3.0 + 0.25 * x) for x in range(10)]) == pytest.approx(0.25)
    assert slope([(1, 5)]) == 0
    assert slope([(2, 5), (2, 7)]) == 0
