"""Chats as token ids under any chat template, and which of the ids the agent wrote.

Invariants: loss falls on what the agent writes behind the prompt that the template gives it, and on
the mark with which the template ends its turn; never on a header, a system message, the user or a
result. Text is tokenized stretch by stretch, cut where the agent begins, where one of its pieces
ends and where its turn ends, so that `prompt(before)` is always the beginning of the ids that the
model was trained on.

The template renders a chat with marks in the place of the agent's words; what stands between the
marks is the template's and the others' text. What a template cannot take is rewritten first
(`fit`); what it can take is tried out on small chats, never guessed from its name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import Any

from jinja2 import TemplateError

from specs.agent_format import ChatMessage, pieces
from specs.errors import Finding, InputError, Where
from specs.segments import Segment, SegmentTokenizer, first_mark, marks_of

OPENING = "(The conversation starts.)"
"""What a user says before an agent that opens, where a template wants the user to speak first."""

RESULTS = "Results: "
"""Stands before a result in a user's message, where a template has no role for tools."""

PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] }}"
    "{{ eos_token or '' }}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)
"""For base models, which have no template: `role: content`, the end mark, a line's end."""

USER, AGENT = "Uu0z", "Aa1z"
"""What is said in the chats that a template is tried out on."""

IGNORED = -100
"""The label on which no loss falls (torch's and transformers' convention)."""

_FAILURES = (TemplateError, TypeError, ValueError, KeyError, AttributeError, IndexError)


@dataclass(frozen=True, slots=True)
class Encoded:
    """A chat as token ids; `mask` says on which of them loss falls."""

    ids: list[int]
    mask: list[bool]

    @property
    def labels(self) -> list[int]:
        """The ids on which loss falls, `IGNORED` elsewhere; shifted by nobody yet."""
        return [
            id_ if trained else IGNORED for id_, trained in zip(self.ids, self.mask, strict=True)
        ]

    @property
    def spans(self) -> list[tuple[int, int]]:
        """The stretches on which loss falls, as (start, stop)."""
        found: list[tuple[int, int]] = []
        start = 0
        for trained, group in groupby(self.mask):
            stop = start + len(list(group))
            if trained:
                found.append((start, stop))
            start = stop
        return found


@dataclass(frozen=True, slots=True)
class Fitted:
    """A message as the template takes it; `parts` are its content, each with whether it is trained.

    The parts of an assistant's message are the pieces that it wrote (`agent_format.pieces`).
    """

    role: str
    parts: tuple[tuple[str, bool], ...]

    @property
    def content(self) -> str:
        """The whole content."""
        return "".join(text for text, _ in self.parts)


class ChatEncoder:
    """Encodes chats with a tokenizer and its chat template.

    Attributes:
        template: the Jinja source, `PLAIN_TEMPLATE` where the tokenizer has none.
        end: what the template puts behind the agent's message to end its turn.
        stops: the ids of marks at which a generation should stop.
        rewrites: the template changes earlier messages as a chat goes on, so that the prompt of a
            turn in the middle is not quite the text that the model was trained on.
    """

    def __init__(self, tokenizer: Any) -> None:
        """Try the tokenizer's template out.

        Raises:
            InputError: when it cannot render a plain chat of user and assistant.
        """
        self.tokenizer = tokenizer
        self.template: str = _template(tokenizer)
        self._first = first_mark(tokenizer) if self.template is PLAIN_TEMPLATE else ""
        self._tokens = SegmentTokenizer(tokenizer)
        self._marks = marks_of(tokenizer)
        if not _obeys(tokenizer):
            raise self._refused("its tokenizer goes by a program of its own and by no template")
        if not self._takes("user", "assistant", "user"):
            raise self._refused("it cannot render a chat of user and assistant")
        self.takes_system = self._takes("system", "user", "assistant", "user")
        self.takes_tool = self._takes("user", "assistant", "tool", "assistant", "user")
        system = ("system",) if self.takes_system else ()
        opening = (*system, "assistant", "user", "assistant", "user")
        self.takes_opening = self._takes(*opening) and (not system or self._takes("system"))
        self._asks, self._header, self._lead = self._generation()
        self.end = self._ending()
        self.stops: tuple[int, ...] = tuple(
            tokenizer.convert_tokens_to_ids(mark) for mark in self._marks if mark in self.end
        )
        self.rewrites = self._rewriting()

    # -- what callers ask for

    def encode(self, messages: Sequence[ChatMessage]) -> Encoded:
        """Return a chat as ids, from the template's first to the end of the agent's last turn.

        What stands behind the last assistant's message is left out: nothing learns from it.

        Raises:
            InputError: when the template fails on the chat.
        """
        fitted = self.fit(messages)
        while fitted and fitted[-1].role != "assistant":
            fitted.pop()
        if not fitted:
            return Encoded([], [])
        gaps = self._gaps([*fitted, _plain("user", USER)], ask=False)
        segments = list(self._segments(fitted, gaps[:-1]))
        segments.append(Segment(self.end, _last(fitted[-1])))
        return self._encoded(segments)

    def prompt(self, messages: Sequence[ChatMessage], prefix: str = "") -> list[int]:
        """Return the ids before the agent writes its next message.

        Args:
            messages: all that was said before, the agent's earlier messages as it wrote them.
            prefix: what the agent has already written of the next one: whole lines, each with its
                end (`agent_format.Piece.prefix`).

        Raises:
            InputError: when the template fails on the chat.
        """
        fitted = self.fit([*messages, ChatMessage("assistant", f"{prefix}x")], len(prefix))
        *before, last = fitted
        if before:
            gaps = self._gaps(before, self._asks)
            gaps[-1] += self._header
        else:  # nothing was said: what the template puts before an agent that opens
            gaps = self._gaps([last, _plain("user", USER)], False)[:1]
            gaps[0] = gaps[0].removesuffix(self._lead)
        segments = list(self._segments(before, gaps))
        begun = last.parts[:-1]
        if begun:
            segments += _words(self._lead, begun)
        return self._encoded(segments).ids

    def fit(self, messages: Sequence[ChatMessage], cut: int = 0) -> list[Fitted]:
        """Return the messages as the template can take them.

        A result becomes a user's message where there is no role for tools, the system message goes
        into the first user's where there is none for it, and neighbours of one role are joined by
        a newline; empty messages are left out.

        Args:
            cut: a place in the last message where its parts must be cut.
        """
        return self._fitted([Fitted(one.role, parts) for one, parts in _split(messages, cut)])

    def _fitted(self, messages: Sequence[Fitted]) -> list[Fitted]:
        fitted: list[Fitted] = []
        for message in messages:
            if message.content:
                fitted.append(self._adapted(message, fitted))
        opens = next((one.role == "assistant" for one in fitted if one.role != "system"), False)
        if opens and not self.takes_opening:
            fitted.insert(int(fitted[0].role == "system"), _plain("user", OPENING))
        if fitted and fitted[0].role == "system" and not self.takes_system:
            told, *fitted = fitted
            if not fitted or fitted[0].role != "user":
                fitted.insert(0, _plain("user", OPENING))
            fitted[0] = _joined(told, fitted[0], "\n\n")
        return _merged(fitted)

    def _adapted(self, message: Fitted, before: Sequence[Fitted]) -> Fitted:
        first = all(one.role == "system" for one in before)
        if message.role == "tool" and (first or not self.takes_tool):
            return Fitted("user", ((RESULTS, False), *message.parts))
        if message.role == "system" and before:
            return Fitted("user", message.parts)
        return message

    # -- trying out

    def _generation(self) -> tuple[bool, str, str]:
        """Return whether to ask for a generation prompt, the header to add, and the lead.

        The header stands before the agent's words where a template has no generation prompt (or one
        that its own history lacks); the lead is what the agent itself writes before its words, such
        as the blank behind `[/INST]`.
        """
        user = _plain("user", USER)
        full = self._render([user, _plain("assistant", AGENT), user], False)
        before = full[: full.index(AGENT)]
        asked, plain = self._render([user], True), self._render([user], False)
        if asked != plain and before.startswith(asked):
            return True, "", before[len(asked) :]
        if before.startswith(plain):
            rest = before[len(plain) :]
            return (False, rest, "") if rest.strip() else (False, "", rest)
        return True, "", ""

    def _ending(self) -> str:
        text = self._render([_plain("user", USER), _plain("assistant", AGENT)], False)
        tail = text[text.rindex(AGENT) + len(AGENT) :]
        places = [tail.index(mark) + len(mark) for mark in self._marks if mark in tail]
        return tail[: min(places)] if places else tail

    def _rewriting(self) -> bool:
        roles = ("system", "assistant", "user", "assistant", "tool", "assistant", "user")
        chat = [_plain(role, f"{role} {place}") for place, role in enumerate(roles)]
        fitted = self._fitted([*chat, _plain("assistant", AGENT), _plain("user", USER)])
        full = self._render(fitted, False)
        return not all(
            full.startswith(self._render(fitted[:place], self._asks) + self._header)
            for place, one in enumerate(fitted)
            if one.role == "assistant" and place > 0
        )

    def _takes(self, *roles: str) -> bool:
        """Whether the template renders every message of a chat, once and in order."""
        chat = [_plain(role, f"Aa{place}z") for place, role in enumerate(roles)]
        try:
            text = self._text(chat, False)
        except _FAILURES:
            return False
        places = [text.find(one.content) for one in chat]
        once = all(text.count(one.content) == 1 for one in chat)
        return once and places == sorted(places)

    # -- rendering

    def _text(self, chat: Sequence[Fitted], ask: bool) -> str:
        text: str = self.tokenizer.apply_chat_template(
            [{"role": one.role, "content": one.content} for one in chat],
            chat_template=self.template,
            tokenize=False,
            add_generation_prompt=ask,
        )
        return self._first + text

    def _render(self, chat: Sequence[Fitted], ask: bool) -> str:
        try:
            return self._text(chat, ask)
        except _FAILURES as error:
            raise self._refused(f"it fails on a chat: {error}") from error

    def _gaps(self, chat: Sequence[Fitted], ask: bool) -> list[str]:
        """Return what stands before, between and behind the assistant's contents."""
        said = [one.content for one in chat if one.role != "assistant"]
        mark = "Aa"
        while any(mark in text for text in (*said, self.template)):
            mark += "a"
        spots = [place for place, one in enumerate(chat) if one.role == "assistant"]
        marked = {place: f"{mark}{number}z" for number, place in enumerate(spots)}
        text = self._render(
            [
                _plain(one.role, marked[place]) if place in marked else one
                for place, one in enumerate(chat)
            ],
            ask,
        )
        gaps = []
        for spot in marked.values():
            before, found, text = text.partition(spot)
            if not found or spot in text:
                raise self._refused("it leaves out, or repeats, what the agent said")
            gaps.append(before)
        return [*gaps, text]

    def _segments(self, chat: Sequence[Fitted], gaps: Sequence[str]) -> Iterator[Segment]:
        """Yield the stretches of a chat: each gap, and the agent's message behind it, if any."""
        written = [one for one in chat if one.role == "assistant"]
        for place, gap in enumerate(gaps):
            if place and gap.startswith(self.end):
                yield Segment(self.end, _last(written[place - 1]))
                gap = gap[len(self.end) :]
            if place == len(written):
                yield Segment(gap)
                continue
            lead = self._lead if gap.endswith(self._lead) else ""
            yield Segment(gap.removesuffix(lead))
            yield from _words(lead, written[place].parts)

    def _encoded(self, segments: Sequence[Segment]) -> Encoded:
        kept = [segment for segment in segments if segment.text]
        ids: list[int] = []
        mask: list[bool] = []
        for found, segment in zip(self._tokens.ids(kept), kept, strict=True):
            mask += [segment.trained and bool(ids)] * len(found)
            ids += found
        return Encoded(ids, mask)

    def _refused(self, reason: str) -> InputError:
        name = getattr(self.tokenizer, "name_or_path", "") or "the tokenizer"
        hint = "Name a model whose chat template takes user and assistant by turns (train.model)."
        return InputError(
            [Finding(Where(str(name)), f"its chat template cannot be used: {reason}", hint)]
        )


def truncate(
    messages: Sequence[ChatMessage], encoder: ChatEncoder, window: int
) -> tuple[list[ChatMessage], int]:
    """Return what fits a window, cut at turn borders from the left, and the turns dropped.

    A turn begins at a user's message; what stands before the first (an opening) belongs to it. The
    system message stays. Turns at the end that are larger than the window by themselves are dropped
    too; nothing is left where no turn fits.

    Args:
        window: token ids that a sequence may hold.
    """
    system = [message for message in messages[:1] if message.role == "system"]
    turns = _turns(messages[len(system) :])
    total = len(turns)

    def kept(first: int) -> list[ChatMessage]:
        return [*system, *(message for turn in turns[first:] for message in turn)]

    def fits(first: int) -> bool:
        return len(encoder.encode(kept(first)).ids) <= window

    if turns and fits(0):
        return list(messages), 0
    while turns and not fits(len(turns) - 1):
        turns.pop()
    if not turns:
        return [], total
    if fits(0):
        return kept(0), total - len(turns)
    low, high = 0, len(turns) - 1  # the first does not fit, the last does
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return kept(high), total - len(turns) + high


def _turns(messages: Sequence[ChatMessage]) -> list[list[ChatMessage]]:
    turns: list[list[ChatMessage]] = []
    heard = False
    for message in messages:
        if not turns or (message.role == "user" and heard):
            turns.append([])
        heard = heard or message.role == "user"
        turns[-1].append(message)
    return turns


def _split(
    messages: Sequence[ChatMessage], cut: int
) -> Iterator[tuple[ChatMessage, tuple[tuple[str, bool], ...]]]:
    """Yield each message with its parts: the agent's cut into pieces, their line's end included."""
    cuts: dict[int, set[int]] = {}
    for piece in pieces(messages):
        cuts.setdefault(piece.message, set()).add(len(piece.prefix))
    for number, message in enumerate(messages):
        places = {place for place in cuts.get(number, ()) if place}
        if cut and number == len(messages) - 1:
            places.add(cut)
        edges = [0, *sorted(places), len(message.content)]
        parts = [message.content[start:stop] for start, stop in pairwise(edges)]
        # Templates trim what they are given, and marks in its place would not show it.
        parts[0] = parts[0].lstrip()
        parts[-1] = parts[-1].rstrip()
        trained = message.train and message.role == "assistant"
        yield message, tuple((part, trained) for part in parts if part)


def _words(lead: str, parts: Sequence[tuple[str, bool]]) -> list[Segment]:
    """Return what the agent wrote, with what it has to write before it."""
    found = [Segment(text, trained, written=True) for text, trained in parts]
    found[0] = replace(found[0], text=lead + found[0].text)
    return found


def _last(message: Fitted) -> bool:
    return message.parts[-1][1]


def _joined(one: Fitted, other: Fitted, between: str) -> Fitted:
    *before, (text, trained) = one.parts
    return Fitted(other.role, (*before, (text + between, trained), *other.parts))


def _merged(messages: Sequence[Fitted]) -> list[Fitted]:
    merged: list[Fitted] = []
    for message in messages:
        if merged and merged[-1].role == message.role:
            merged[-1] = _joined(merged[-1], message, "\n")
        else:
            merged.append(message)
    return merged


def _plain(role: str, content: str) -> Fitted:
    return Fitted(role, ((content, False),))


def _obeys(tokenizer: Any) -> bool:
    """Whether a chat is rendered by the template; mistral_common's tokenizers know none."""
    chat = [{"role": "user", "content": USER}]
    template = "{{ messages | length }}"
    return bool(tokenizer.apply_chat_template(chat, chat_template=template, tokenize=False) == "1")


def _template(tokenizer: Any) -> str:
    if not getattr(tokenizer, "chat_template", None):
        return PLAIN_TEMPLATE
    try:
        found: str = tokenizer.get_chat_template()
    except ValueError as error:
        message = f"its chat template cannot be used: {error}"
        raise InputError([Finding(Where(str(tokenizer.name_or_path)), message, "")]) from None
    return found
