"""No message holds what a URL or a key hides, in whatever form a server repeats it."""

from __future__ import annotations

import base64

import pytest

from specs.masking import Place, plain_url

ENCODED = base64.b64encode(b"me:hunter/2 long").decode()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1"),
        ("http://me:hunter2@host:8000/v1", "http://host:8000/v1"),
        ("https://sk-token@host/v1?region=eu", "https://host/v1?region=eu"),
        ("https://host/v1?key=hunter2&region=eu", "https://host/v1?key=%28removed%29&region=eu"),
        ("me:hunter2@host/v1", "host/v1"),
        ("http://me:hunter2@[::1/v1", "(removed)"),
    ],
)
def test_a_url_is_shown_without_what_it_hides(url: str, shown: str) -> None:
    assert plain_url(url) == shown


def test_what_a_server_repeats_is_masked_in_every_form() -> None:
    url = "http://me:hunter%2F2%20long@host/v1?api_key=QUERY-KEY"
    place = Place.of(url, "sk-key")
    for echoed in ("hunter%2F2%20long", "hunter/2 long", ENCODED, "QUERY-KEY", "sk-key", url):
        said = place.clean(f"no: <{echoed}>, or {echoed!r}")
        assert "***" in said
        assert "hunter" not in said
        assert echoed not in said
    assert place.clean("some message of me") == "some message of ***"
    assert Place.of("http://host/v1").clean("as it is") == "as it is"
