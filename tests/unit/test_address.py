"""What an answer from an address means that is not a cluster's: gRPC's status, put into words."""

from __future__ import annotations

import pytest

from cluster.address import answer_refused, check_address
from specs.errors import InputError

REFUSED = "failed to connect to all addresses; last error: UNKNOWN: ipv4:10.0.0.5:6379: Failed to "
REFUSED += "connect to remote host: Connection refused"
HTTP = "last error: INTERNAL: ipv4:10.0.0.5:8265: Failed parsing HTTP/2 (Expected SETTINGS frame) "
HTTP += "(Trying to connect an http1.x server (HTTP status 400))"
UNKNOWN = "errors resolving nowhere:6379: [field:hostname lookup error: Domain name not found]"


@pytest.mark.parametrize(
    ("status", "details", "told", "advice"),
    [
        ("UNAVAILABLE", REFUSED, "no Ray cluster answers there (Connection refused)", "Name the"),
        ("UNAVAILABLE", UNKNOWN, "answers there (Domain name not found)", "Name the cluster's"),
        ("UNAVAILABLE", HTTP, "a web server", "ray job submit --address http://10.0.0.5:6379"),
        ("UNAVAILABLE", "", "no Ray cluster answers there (UNAVAILABLE)", "Name the cluster's"),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", "answers there within 5 s", "A firewall may"),
        ("UNIMPLEMENTED", "Method not found!", "is no cluster's head", "other ports of Ray's"),
        ("UNAUTHENTICATED", "InvalidAuthToken", "asks for a token", "RAY_AUTH_TOKEN_PATH"),
    ],
)
def test_each_answer_says_what_is_there_and_what_to_do(
    status: str, details: str, told: str, advice: str
) -> None:
    said = str(answer_refused("10.0.0.5:6379", status, details))
    first, second = said.split("\n    ")
    assert first.startswith("cluster.address=10.0.0.5:6379: error: ")
    assert told in first
    assert advice in second


def test_an_address_from_the_environment_is_named_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "ray://10.0.0.5:10001")
    with pytest.raises(InputError) as refused:
        check_address("ray://10.0.0.5:10001")
    assert str(refused.value).startswith("RAY_ADDRESS=ray://10.0.0.5:10001: error: ")


def test_this_machine_alone_needs_no_answer() -> None:
    check_address("local")


def test_where_no_ray_runs_on_this_machine_auto_finds_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(address: str) -> None:
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr("ray._private.services.canonicalize_bootstrap_address", none)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(InputError, match="auto: error: no Ray is running on this machine"):
        check_address("auto")
