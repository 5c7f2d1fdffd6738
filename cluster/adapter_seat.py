"""A trained adapter in the agent's seat: it understands, calls and answers; the graph says where.

The person's words are free. What the adapter writes moves the dialogue: the edge of the intent that
it names, among those whose guards hold, with the slots that it read; the tools are really called,
with the arguments that it wrote; results and facts come back to it as in its training. No reference
takes part. What it cannot carry through leaves everything as it was.
"""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from specs.agent_chat import (
    SEARCH,
    UNNAMED,
    agent_card,
    spoken_facts,
    system_message,
    tool_call,
    tool_content,
    tool_message,
)
from specs.agent_format import (
    ChatMessage,
    PieceKind,
    Understanding,
    read_call,
    read_understanding,
)
from specs.ahead import THEN, behind, open_ahead, take_both
from specs.domain import Domain, Edge, Slot
from specs.errors import DuologueError, EngineError, Unavailable
from specs.plan import Plan
from specs.scene import Calling, CallResult, Moves, Scene, SceneError, coerce
from specs.seeds import later
from specs.values import typed

Write = Callable[[Sequence[ChatMessage], str, PieceKind], Awaitable[str]]
"""Has the adapter write a piece behind these messages and a prefix of its own message."""


class Caller(Protocol):
    """What answers calls (`actors.caller.ToolCaller`)."""

    async def call(self, calling: Calling, scene: Scene) -> CallResult:
        """Return what the call brings."""


class _Lost(DuologueError):
    """The adapter's understanding leads nowhere from here."""


@dataclass(slots=True)
class Said:
    """What came of the person's words.

    Attributes:
        answer: empty where the adapter could not go on; the dialogue is where it was.
        thoughts: what it wrote for itself, what its calls brought, and what was wrong, in order.
        wordless: it got as far as its answer, and wrote none.
    """

    answer: str = ""
    thoughts: list[str] = field(default_factory=list)
    wordless: bool = False


class AdapterDialogue:
    """One dialogue between a person and an adapter.

    Attributes:
        messages: as the adapter sees them.
        scene: where the dialogue is.
    """

    def __init__(self, domain: Domain, plan: Plan, caller: Caller, write: Write) -> None:
        self.scene = Scene(domain, plan)
        self.messages = [ChatMessage("system", system_message(agent_card(domain)))]
        self._domain = domain
        self._caller = caller
        self._write = write

    @property
    def ended(self) -> bool:
        """Whether the agent has arrived in an end state."""
        return self.scene.ended

    async def open(self) -> Said:
        """Return the agent's opening, empty where the user speaks first."""
        said = Said()
        if self._domain.open == "agent":
            await self._answer(self.scene.begin(), Understanding(""), [], said)
        return said

    async def hear(self, text: str) -> Said:
        """Return what the adapter makes of the person's words.

        Raises:
            EngineError, Unavailable: when the engine or the store does not answer.
        """
        said = Said()
        before = (_copied(self.scene), list(self.messages))
        self.messages.append(ChatMessage("user", text))
        try:
            await self._hear(text, said)
        except (EngineError, Unavailable):
            raise
        except DuologueError as error:
            said.thoughts.append(str(error))
            said.answer = ""
        if not said.answer:
            self.scene, self.messages = before
        return said

    async def _hear(self, text: str, said: Said) -> None:
        line = await self._write(self.messages, "", "understanding")
        said.thoughts.append(line)
        understood = read_understanding(line)
        if understood is None:
            raise _Lost("that is no understanding: the agent did not make out what you want")
        if understood.intent == UNNAMED and UNNAMED not in self.possible():
            await self._come_back(text, line, said)
            return
        self.scene = _about(self._domain, self.scene, understood)
        edge = self._edge(understood)
        slots = self._slots(edge, understood, said)
        scene = self.scene
        scene.slots, scene.heard = slots, text
        scene.turn += 1
        then = self._then(edge, understood)
        await self._answer(take_both(scene, edge, then), understood, [line], said)

    async def _come_back(self, text: str, line: str, said: Said) -> None:
        """Let the adapter answer what fits nothing, where the conversation is."""
        scene = self.scene
        if not self._domain.agent.speech.references and not self._domain.facts:
            raise _Lost(f"from {scene.node} no edge with the intent {UNNAMED!r}")
        scene.heard = text
        scene.turn += 1
        scene.come_back()
        said.answer = await self._write(self.messages, f"{line}\n", "answer")
        said.wordless = not said.answer
        self.messages.append(ChatMessage("assistant", f"{line}\n{said.answer}"))
        scene.heard = said.answer
        scene.turn += 1

    def possible(self) -> list[str]:
        """Return the intents that lead on from here."""
        return list(dict.fromkeys(edge.intent or UNNAMED for edge in self.scene.routable_edges()))

    def _edge(self, understood: Understanding) -> Edge:
        """Return the open edge with that intent whose slots are most like those written.

        An intent may stand on several edges (a question about an ingredient, about the time), which
        differ in their slots; of equals the one that is drawn most often.
        """
        routable = self.scene.routable_edges()
        edges = [edge for edge in routable if (edge.intent or UNNAMED) == understood.intent]
        if not edges:
            raise _Lost(f"from {self.scene.node} no edge with the intent {understood.intent!r}")
        written = set(understood.slots)
        return min(edges, key=lambda edge: (len(written ^ set(edge.speech.slots)), -edge.weight))

    def _then(self, edge: Edge, understood: Understanding) -> Edge | None:
        """Return the edge that was said as well, if the adapter has heard one."""
        wanted = understood.slots.get(THEN)
        edges = open_ahead(behind(self.scene, edge)) if wanted is not None else []
        return next((one for one in edges if (one.intent or UNNAMED) == wanted), None)

    def _slots(self, edge: Edge, understood: Understanding, said: Said) -> dict[str, Any]:
        """Return the slots as written; settled ones that are missing are worked out."""
        slots: dict[str, Any] = {}
        missing: list[Slot] = []
        for slot in edge.speech.slots.values():
            try:
                slots[slot.name] = coerce(slot, understood.slots.get(slot.name))
            except SceneError as error:
                said.thoughts.append(str(error))
                slots[slot.name] = None
            if slots[slot.name] is None:
                missing.append(slot)
        if any(slot.value is not None for slot in missing):
            settled = self.scene.settle(edge.speech, "user")
            slots |= {slot.name: settled.get(slot.name) for slot in missing}
        left = [name for name, value in slots.items() if value is None]
        if left:
            raise _Lost(f"the agent read no {', '.join(left)} in your words")
        return slots

    async def _answer(
        self, moves: Moves, understood: Understanding, written: list[str], said: Said
    ) -> None:
        """Move on, calling tools, and let the adapter speak where the moves end."""
        contents: list[dict[str, Any]] = []
        result: CallResult | None = None
        while (calling := _next(moves, result)) is not None:
            if contents:
                self.messages.append(tool_message(contents[-1], ()))
            calling, line = await self._calling(calling, written, said)
            self.messages.append(ChatMessage("assistant", "\n".join([*written, line])))
            written = []
            result = await self._caller.call(calling, self.scene)
            contents.append(tool_content(self._domain, calling, result))
            said.thoughts.append(tool_message(contents[-1], ()).content)
        facts = self._facts([understood.slots, *contents], bool(contents))
        if contents or facts:
            if not contents and written:
                self.messages.append(ChatMessage("assistant", "\n".join(written)))
                written = []
            self.messages.append(tool_message(contents[-1] if contents else {}, facts))
        if facts:
            said.thoughts.append(f"facts: {facts}")
        prefix = "".join(f"{line}\n" for line in written)
        said.answer = await self._write(self.messages, prefix, "answer")
        said.wordless = not said.answer
        self.messages.append(ChatMessage("assistant", prefix + said.answer))
        scene = self.scene
        scene.replied(scene.reply)
        scene.heard = said.answer
        scene.turn += 1

    async def _calling(
        self, calling: Calling, written: Sequence[str], said: Said
    ) -> tuple[Calling, str]:
        """Return the call with the adapter's arguments, and the line that makes it.

        Where the adapter writes no such call, the graph's own is made, and the thoughts say so.
        Nothing is planted: the person's wish decides what is found.
        """
        calling = replace(calling, planting=None)
        line = await self._write(self.messages, "".join(f"{one}\n" for one in written), "call")
        said.thoughts.append(line)
        call = read_call(line)
        if call is None or call.tool != calling.tool:
            said.thoughts.append(f"(no call of {calling.tool}: the graph's own is made)")
            return calling, tool_call(calling).written()
        given = {
            name: _input(self._domain, calling.tool, name, value)
            for name, value in call.arguments.items()
            if name in calling.arguments
        }
        given = {name: value for name, value in given.items() if value is not None}
        return replace(calling, arguments={**calling.arguments, **given}), line

    def _facts(self, known: Sequence[Mapping[str, Any]], called: bool) -> list[Any]:
        """Return what the state speaks from, its reply in place (`specs.agent_chat`)."""
        scene = self.scene
        speech = self._domain.states[scene.speaking].speech
        _, scene.reply = scene.voiced(speech, "agent")
        draws = later(scene.plan.walk_id, scene.turn, "check")
        return spoken_facts(speech, scene.scope(), known, draws, called)


def _next(moves: Moves, result: CallResult | None) -> Calling | None:
    try:
        return next(moves) if result is None else moves.send(result)
    except StopIteration:
        return None


def _input(domain: Domain, tool: str, name: str, value: Any) -> Any:
    """Return an argument in its type; None where it is of another."""
    inputs: Mapping[str, Any] = SEARCH if tool == "search" else domain.tools[tool].input
    try:
        return typed(inputs.get(name, "text"), value)
    except (TypeError, ValueError, OverflowError):
        return None


def _copied(scene: Scene) -> Scene:
    """Return a scene that goes its own way from here."""
    copied = copy.copy(scene)
    copied.path, copied.reached = list(scene.path), list(scene.reached)
    copied.results, copied.calls = list(scene.results), list(scene.calls)
    return copied


def _about(domain: Domain, scene: Scene, understood: Understanding) -> Scene:
    """Return the scene with the document that the person has chosen as the one it is about.

    A simulated user always chooses the planned document, and a slot says where it stands
    (`position(results, doc.id)`) or which it is (`doc.id`). A person chooses any: the document
    follows the slot.
    """
    for edge in domain.edges_from(scene.node):
        if (edge.intent or UNNAMED) != understood.intent:
            continue
        for slot in edge.speech.slots.values():
            if slot.value is None or ("doc", "id") not in slot.value.paths:
                continue
            chosen = _chosen(scene, slot, understood.slots.get(slot.name))
            if chosen is not None:
                return _of(domain, scene, chosen)
    return scene


def _chosen(scene: Scene, slot: Slot, value: Any) -> str | None:
    try:
        value = coerce(slot, value)
    except SceneError:
        return None
    if slot.type == "integer" and value is not None and 0 < value <= len(scene.results):
        return str(scene.results[value - 1]["id"])
    return value if slot.type == "id" else None


def _of(domain: Domain, scene: Scene, id_: str) -> Scene:
    if scene.plan.document is not None and scene.plan.document.id == id_:
        return scene
    try:
        document = domain.document(id_)
    except KeyError:
        return scene
    other = Scene(domain, replace(scene.plan, document=document))
    other.node = other.speaking = scene.node
    other.replied(scene.reply)
    for name in ("speaking", "turn", "heard", "memory", "slots", "results", "tools", "result"):
        setattr(other, name, getattr(scene, name))
    other.path, other.reached, other.calls = scene.path, scene.reached, scene.calls
    return other
