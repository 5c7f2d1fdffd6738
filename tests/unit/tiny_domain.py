# ruff: noqa: E501
"""A tiny kiosk domain with one of everything, which tests write to a folder and play.

It has a silent state with a search, a silent state with a tool and cases, a group, a digression,
draws, settled and written slots (of the user and of the agent), references with slots of their own,
and an end.
"""

from __future__ import annotations

import json
from pathlib import Path

from specs.domain import Domain
from specs.loader import open_domain

TEXT = """\
domain: kiosk
description: Sells tea.
open: agent
corpus: {path: corpus.jsonl, id: id, embed: "{{ doc.title }}. {{ doc.note }}"}
memory:
  page: 0
  asked: {type: text, init: ""}
  cart: {type: list, of: id}
  plant_page: {type: integer, draw: {0: 0.75, 1: 0.25}}
  hurried: {type: boolean, draw: {false: 0.5, true: 0.5}}
goals:
  - "Buy {{ doc.title }}."
  - {text: "Drink {{ doc.title }} at once.", with: {hurried: true}}
roles:
  user: {name: guest, system: "You are {{ persona.name }}{{ pick([', new in town', ', a regular', ', on your way']) }}. {{ goal }}"}
  agent: {name: keeper, system: "You keep a tea kiosk{{ pick([' by the sea', ' in the park', ' at the station']) }}. Page {{ memory.page }}."}
tools:
  pay: {input: {id: id, cups: integer}, outcomes: [{p: 0.8, result: {ok: true, bill: "{{ input.cups }} cups"}}, {p: 0.2, result: {ok: false, bill: ""}}]}
  weather: {input: {day: text}, outcomes: [{p: 1, result: {sky: grey}}]}
intents:
  ask:
    slots: {query: {type: text, reference: doc.title}}
    say: "Ask for {{ doc.title }}."
    examples:
      - {with: {doc: {title: Lemon Balm}}, slots: {query: lemon balm}, say: "Have you got lemon balm?"}
      - {with: {doc: {title: Roasted Barley}}, slots: {query: roasted barley}, say: "I fancy roasted barley."}
    reference:
      - "Do you have {{ slots.query }} today?"
      - {say: "Some {{ slots.query }}, if there is any.", slots: {query: "doc.title | lower"}}
    checks: [mentions(slots.query), not_boilerplate, max_words(12)]
  other:
    say: "Ask what else there is."
    reference: ["What else is there?", "Anything besides {{ (results | first).title }}?"]
    checks: [not_boilerplate, max_words(12)]
  choose:
    slots:
      option: {type: integer, value: "position(results, doc.id)"}
      cups: {type: integer, reference: "2 if memory.hurried else 3"}
    say: "Take number {{ slots.option }} and say how many cups."
    examples:
      - {with: {slots: {option: 2}}, slots: {option: 2, cups: 4}, say: "Four cups of number 2, please."}
    reference: ["Number {{ slots.option }}, {{ slots.cups }} cups."]
    checks: [says(slots.option)]
  gossip:
    say: "Say something about {{ pick(['the rain', 'the wind', 'the sun']) }}."
    reference: ["What weather!", "It never stops, does it?", "I forgot my hat again."]
    checks: [similar(0.2)]
states:
  hello:
    say: "Greet the guest."
    reference: ["Good day, what may it be?", "Hello there, some tea?"]
  look_up:
    call: {tool: search, query: "slots.query | default(memory.asked)", page: memory.page, plant: {id: doc.id, page: memory.plant_page}}
    set: {asked: "slots.query | default(memory.asked)"}
    next: [{when: "doc.id in (results | map(attribute='id'))", to: offer}, {when: results, to: offer_others}, {to: nothing}]
  offer:
    say: "Name {{ results | map(attribute='title') | join(', ') }} and ask which one."
    reply: {shown: [id]}
    reference:
      - {say: "I have {{ results | map(attribute='title') | join(', ') }}. Which one?", slots: {shown: "results | map(attribute='id')"}}
    checks: [lists(results)]
  offer_others:
    say: "Name the teas."
    reply: {best: {type: id, value: "(results | first).id"}}
    reference: ["There is {{ results | map(attribute='title') | join(', ') }}."]
  nothing:
    say: "Say that nothing was found."
    reference: ["Nothing of the kind, sorry."]
  check_out:
    call: {tool: pay, id: doc.id, cups: slots.cups}
    set: {cart: "memory.cart + [doc.id]"}
    next: [{when: result.ok, to: look_out}, {to: nothing}]
  look_out:
    call: {tool: weather, day: "'today'"}
    next: {to: bye}
  bye:
    say: "Wish a good day under a {{ result.sky }} sky{{ ', quickly' if memory.hurried else '' }}."
    reference: ["{{ tools.pay.bill }}, and mind the {{ tools.weather.sky }} sky. Bye!"]
  farewell:
    say: "Say goodbye."
    reference: ["Come again."]
  small_talk:
    digression: true
    say: "Agree."
    reference: ["Indeed.", "So they say.", "I have noticed."]
groups: {talking: [hello, offer, offer_others, nothing]}
edges:
  - {from: [hello, nothing], intent: ask, to: look_up, set: {page: "0"}}
  - {from: [offer, offer_others], intent: other, weight: 0.5, to: look_up, when: memory.page < 2, set: {page: memory.page + 1}}
  - {from: [offer], intent: choose, to: [{when: "slots.option > 0 and slots.cups < 99", to: check_out}, {to: nothing}]}
  - {from: offer_others, intent: ask, to: look_up, set: {page: memory.plant_page}}
  - {from: talking, intent: gossip, weight: 0.2, to: small_talk}
  - {from: nothing, say: "Leave.", reference: ["Never mind then, bye.", "I will come back, bye."], to: farewell, weight: 0.2}
start: hello
end: [bye, farewell]
subgoals: [offer, bye]
max_turns: 40
"""

TEAS = (
    ("Mint", "Cool and green."),
    ("Lemon Verbena", "Fresh and sour."),
    ("Rooibos", "Red and mild."),
    ("Oolong", "Half dark."),
    ("Chamomile", "For the evening."),
    ("Fennel", "After a meal."),
    ("Jasmine", "White flowers."),
)


def write(folder: Path, text: str = TEXT) -> Path:
    """Write the domain to a folder and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "domain.yaml").write_text(text, encoding="utf-8")
    teas = [
        {"id": f"t{number}", "title": title, "note": note}
        for number, (title, note) in enumerate(TEAS)
    ]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, teas)) + "\n")
    people = [{"id": f"p{i}", "name": name, "text": f"{name} walks."} for i, name in _people()]
    (folder / "personas.jsonl").write_text("\n".join(map(json.dumps, people)) + "\n")
    return folder


def _people() -> list[tuple[int, str]]:
    return list(enumerate(("Ada", "Ben", "Cleo", "Dov", "Eva")))


def changed(*changes: tuple[str, str]) -> str:
    """Return the text with parts replaced that are there."""
    text = TEXT
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new, 1)
    return text


def tiny(folder: Path, text: str = TEXT) -> Domain:
    """Return the domain, written and loaded."""
    return open_domain(write(folder, text))
