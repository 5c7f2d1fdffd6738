# ruff: noqa: E501
"""A small, whole domain in text: tests write it to a folder, as it is or with something changed."""

import json
from pathlib import Path

from specs.errors import Finding
from specs.loader import load_domain

TEXT = """\
domain: library
description: Finds a book and lends it.
open: agent
corpus: {path: corpus.jsonl, id: id, embed: "{{ doc.title }} by {{ doc.author }}"}
memory:
  page: 0
  tries: {type: integer, init: 0}
  mood: {type: text, draw: {calm: 0.5, hurried: 0.5}}
  cart: {type: list, of: id}
goals:
  - "Borrow {{ doc.title }}."
  - {text: "Find something by {{ doc.author }}.", with: {tries: 1}}
roles:
  user: {name: reader, system: "You are {{ persona.name }}. {{ goal }}"}
  agent: {name: librarian, system: {file: prompts/agent.jinja}}
tools:
  lend: {input: {book: id}, outcomes: [{p: 0.9, result: {ok: true}}, {p: 0.1, result: {ok: false}}]}
intents:
  ask_book:
    slots: {query: {type: text, reference: doc.title}}
    say: "Ask for {{ doc.title }}."
    examples: [{with: {doc: {title: Emma}}, say: "Have you got Emma?", slots: {query: Emma}}]
    reference: ["Do you have {{ doc.title }}?"]
    checks: [mentions(slots.query), not_boilerplate, max_words(30)]
  choose:
    slots: {option: {type: integer, value: "position(results, doc.id)"}}
    say: "Pick number {{ slots.option }}."
    reference: "Number {{ slots.option }}, please."
  more:
    say: "Ask for other books."
    reference: What else is there?
  thank:
    say: "Thank the librarian."
    reference: Thank you.
  chat:
    say: "Mention the weather."
    reference: Nice day, is it not?
states:
  hello:
    say: "Greet the reader."
    reference: "Hello, what would you like to read?"
  look_up:
    call: {tool: search, query: "slots.query | default('')", page: memory.page, plant: {id: doc.id, page: 0}}
    next: [{when: results, to: show}, {to: nothing}]
  show:
    say: "Offer the books."
    reply: {shown: [id]}
    examples:
      - {with: {results: [{title: Emma}]}, say: "I have Emma.", slots: {shown: ["1"]}}
    reference: {say: "I have {{ results | map(attribute='title') | join(', ') }}.", slots: {shown: "results | map(attribute='id')"}}
    checks: [grounded(results), lists(results)]
  nothing:
    say: "Say that there is nothing."
    reference: I found nothing, sorry.
  lent:
    call: {tool: lend, book: doc.id}
    set: {cart: "memory.cart + [doc.id]"}
    next: {to: bye}
  bye:
    say: "Say goodbye."
    reference: "{{ 'Enjoy it' if result.ok else 'Come again' }}, goodbye."
  small_talk:
    digression: true
    say: "Answer briefly."
    reference: It is, thank you.
groups: {open: [hello, show, nothing]}
edges:
  - {from: [hello, nothing], intent: ask_book, to: look_up, when: memory.tries < 3, set: {tries: memory.tries + 1}}
  - {from: show, intent: more, to: look_up, when: memory.page < 2, set: {page: memory.page + 1}}
  - {from: show, intent: choose, weight: 0.5, to: [{when: slots.option > 0, to: lent}, {to: nothing}]}
  - {from: open, intent: chat, weight: 0.1, to: small_talk}
  - {from: nothing, intent: thank, to: bye}
  - {from: nothing, say: "Give up.", reference: "Never mind.", to: bye, weight: 0.2}
start: hello
end: [bye]
subgoals: [show, bye]
max_turns: 30
"""

BOOKS = [
    {"id": 1, "title": "Emma", "author": "Jane Austen", "tags": ["love"]},
    {"id": 2, "title": "Ulysses", "author": "James Joyce", "tags": ["sea"]},
    {"id": 3, "title": "Middlemarch", "author": "George Eliot", "tags": ["town"]},
]
PEOPLE = [
    {"id": "ann", "name": "Ann", "text": "Ann reads on trains.", "traits": ["curious"]},
    {"id": "bo", "name": "Bo", "text": "Bo reads at night."},
]


def write(folder: Path, text: str = TEXT, books: list[dict[str, object]] | None = None) -> Path:
    """Write the domain to a folder and return it."""
    (folder / "prompts").mkdir(parents=True, exist_ok=True)
    (folder / "domain.yaml").write_text(text, encoding="utf-8")
    (folder / "prompts" / "agent.jinja").write_text("You help {{ persona.name }}.\n")
    lines = [json.dumps(book) for book in (BOOKS if books is None else books)]
    (folder / "corpus.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "personas.jsonl").write_text("\n".join(json.dumps(one) for one in PEOPLE))
    return folder


def changed(old: str, new: str) -> str:
    """Return the domain's text with something replaced that is there."""
    assert old in TEXT, old
    return TEXT.replace(old, new, 1)


def line_of(text: str, part: str) -> int:
    """Return the line, counted from 1, in which a part of a text stands first."""
    return text[: text.index(part)].count("\n") + 1


def findings(folder: Path, text: str) -> list[Finding]:
    """Return what is wrong with the domain when its text reads so."""
    return load_domain(write(folder, text))[1]
