"""A task in the form of STAR's, with dialogues: a baker takes orders for cakes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

REPLIES = {
    "hello": "Good day, what can I bake for you?",
    "ask_name": "Who is the cake for?",
    "cake_ask_flavour": "Which flavour shall it be?",
    "cake_ask_candles": "Shall I put candles on it?",
    "cake_offer": "A {flavour:s} cake for {price:d} coins is free. Shall I keep it for {who:s}?",
    "cake_sold_out": "There is no {flavour:s} cake left today.",
    "cake_kept": "It is kept, and your number is {number:d}.",
    "cake_bye": "Goodbye, and enjoy it.",
    "anything_else": "Is there more that I can do?",
    "cake_no_oven": "The oven is cold today.",
    "query_check": "Query Check",
    "query_keep": "Query Keep",
    "available": "Available",
    "unavailable": "Unavailable",
    "yes": "Yes",
    "no": "No",
}
GRAPH = {
    "hello": "ask_name",
    "ask_name": "cake_ask_flavour",
    "cake_ask_flavour": "cake_ask_candles",
    "cake_ask_candles": "query_check",
    "available": "cake_offer",
    "unavailable": "cake_sold_out",
    "yes": "query_keep",
    "no": "cake_ask_flavour",
    "query_keep": "cake_kept",
    "cake_kept": "anything_else",
}
NAMES = ("Ida", "Otto", "Fenna", "Bo")
FLAVOURS = ("plum", "lemon", "nut")
FULL = """
task: cake_order
describe: "Takes orders for cakes."
slots: {ask_name: [CustomerName]}
choices: {Candles: [Yes, No]}
optional: []
fields: {who: [CustomerName], number: [query_check.id]}
messages: {available: [we have it], unavailable: [gone]}
conditions: {yes: {after: cake_offer}, no: {after: cake_offer}}
edges:
  - {from: cake_sold_out, to: anything_else}
  - {from: anything_else, to: cake_bye}
leave_out: [cake_no_oven]
"""


def said(text: str) -> dict[str, Any]:
    return {"role": "user", "text": text}


def answered(action: str, text: str = "") -> dict[str, Any]:
    return {"role": "agent", "action": action, "text": text or REPLIES.get(action, action)}


def asked(kind: str, name: str, flavour: str, candles: str) -> dict[str, Any]:
    values = {"CustomerName": name, "Flavour": flavour, "Candles": candles, "RequestType": kind}
    constraints = [{key: json.dumps(value)} for key, value in values.items()]
    return {"role": "query", "api": "cake_order", "constraints": constraints}


def brought(**item: Any) -> dict[str, Any]:
    return {"role": "result", "item": {"APIName": "cake_order", **item}, "total": -1}


def talk(number: int) -> list[dict[str, Any]]:
    """One dialogue of many that differ in names, flavours, candles and luck."""
    name, flavour = NAMES[number % 4], FLAVOURS[number % 3]
    candles = number % 2 == 0
    events = [
        said("Hi!"),
        answered("hello"),
        said(("I'd like a cake.", "A cake, please.", "I have come for a cake.")[number % 3]),
        answered("ask_name"),
        said((f"For {name}.", f"It's for {name}", f"My friend {name}")[number % 3]),
        answered("cake_ask_flavour"),
        said((f"{flavour} please", f"I like {flavour} best", f"{flavour}")[number % 3]),
        answered("cake_ask_candles"),
        said(("Yes, a few.", "Sure, many!", "Of course")[number % 3] if candles else "No candles"),
        asked("Check", name, flavour, "Yes" if candles else "No"),
    ]
    if flavour == "nut":
        events += [brought(Message="All of it is gone."), answered("cake_sold_out")]
        return [*events, said("A pity."), answered("anything_else"), said("No"), answered("bye")]
    price, free = 5 + number % 3, "Good, we have it."
    events += [brought(Message=free, Price=price, Flavour=flavour, id=number)]
    events += [answered("cake_offer"), said(("Yes please", "Do that", "Fine")[number % 3])]
    events += [asked("Keep", name, flavour, "Yes" if candles else "No"), brought(Message="Kept.")]
    events += [answered("cake_kept"), said(("Thanks!", "Lovely")[number % 2])]
    return [*events, answered("anything_else"), said("No, that's all"), answered("cake_bye")]


def second_thoughts(number: int) -> list[dict[str, Any]]:
    """A dialogue in which the first offer is declined, and another cake asked for."""
    declined = (said("No, not that one"), answered("cake_ask_flavour"))
    return [*talk(number)[:12], *declined, *talk(number + 2)[6:]]


def talks() -> Iterator[dict[str, Any]]:
    for number in range(48):
        events = second_thoughts(number) if number % 6 == 4 else talk(number)
        yield {"id": str(number), "task": "cake_order", "events": events}


def write_task(folder: Path, **changed: Mapping[str, str]) -> Path:
    """Write the task, its responses and the dialogues; returns the task's file."""
    folder.mkdir(parents=True, exist_ok=True)
    data: dict[str, Any] = {"task": "order_a_cake", "replies": REPLIES, "graph": GRAPH, **changed}
    file = folder / "cake_order.json"
    file.write_text(json.dumps(data))
    spoken = {key: text for key, text in data["replies"].items() if text[-1] in ".?!"}
    (folder / "cake_order.responses.json").write_text(json.dumps(spoken))
    lines = "".join(json.dumps(one) + "\n" for one in talks())
    (folder / "dialogues.jsonl").write_text(lines)
    return file
