"""Domains that no reply can be routed in are refused with every edge that lacks words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cluster.domain_commands import rehearse
from specs.errors import InputError
from specs.loader import open_domain
from specs.routing import routing_findings


@pytest.mark.parametrize("name", ["tavern", "healer", "recipe", "shop"])
@pytest.mark.parametrize("policy", ["walk", "routed", "hybrid", "single_prompt"])
def test_what_is_shipped_can_be_played(name: str, policy: str) -> None:
    found = routing_findings(open_domain(name), policy)
    if (name, policy) == ("recipe", "routed"):  # written for walks
        assert ["comes back to the point" in one.message for one in found] == [True]
    else:
        assert found == []


@pytest.mark.parametrize("policy", ["routed", "hybrid"])
def test_an_intent_without_words_is_named_once_and_where_it_stands(policy: str) -> None:
    domain = open_domain("tavern")
    mute = {"take_stew", "drink_ale"}
    intents = {
        name: replace(one, speech=replace(one.speech, references=())) if name in mute else one
        for name, one in domain.intents.items()
    }
    edges = tuple(
        replace(edge, speech=intents[str(edge.intent)].speech) if edge.intent in mute else edge
        for edge in domain.edges
    )
    found = routing_findings(replace(domain, intents=intents, edges=edges), policy)
    assert sorted(one.where.line for one in found) == sorted(
        domain.intents[name].where.line for name in mute
    )
    assert all("has no `reference`" in one.message for one in found)


def test_a_rehearsal_of_it_is_refused_before_anybody_speaks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = """
domain: bell
open: agent
roles: {user: {name: guest}, agent: {name: porter}}
intents:
  ring: {say: "Ring."}
states:
  wait: {say: "Ask what the guest wants.", reference: ["What can I do for you?"]}
  come: {say: "Come.", reference: ["Here I am."]}
edges: [{from: wait, intent: ring, to: come}]
start: wait
end: [come]
"""
    (tmp_path / "domain.yaml").write_text(text)
    with pytest.raises(InputError, match=r"domain.yaml:6:9: error: the intent 'ring' has no"):
        rehearse(str(tmp_path), None, 1, 0, 0, policy="routed")
    assert "Here I am" not in capsys.readouterr().out
