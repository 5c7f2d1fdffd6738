"""The checks that a domain can name, as pure functions of an utterance and what it was made from.

Invariants: a check is deterministic; it holds in any script (`specs.words`); a check that has a
measure reports it beside its verdict, so that a run can be filtered by it later. `similar` needs an
embedding and is judged by the conversation, which has one (`pending`).
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import regex

from specs.domain import CheckCall, Domain, Speech
from specs.listing import Listing
from specs.records import CheckResult
from specs.words import (
    Vocabulary,
    asks,
    content_words,
    is_number,
    normalize,
    number_forms,
    sentences,
    vocabulary,
    words,
)

GROUNDED_SHARE = 0.75
"""Least share of an utterance's content words that its material must hold."""

SENTENCE_SHARE = 0.65
"""The same, of each sentence that has two words or more from nowhere."""

FOREIGN_RUN = 3
"""Content words in a row from nowhere that make an invented clause, however long the rest is."""

RECITED = 5
"""Words in a row from the instruction's own text that no person would say."""

MENTIONED_SHARE = 0.6
"""Least share of a value's content words that an utterance must hold to mention it."""

ECHO_SHARE = 0.8
"""Share of an utterance's words, in order, that makes it an echo of what was just heard."""

SIMILARITY = 0.5
"""Default least cosine between an utterance and the nearest reference (all-MiniLM-L6-v2)."""


@dataclass(slots=True)
class Utterance:
    """What was said, and what a check may need beside it.

    Attributes:
        instruction: what the speaker was told to say.
        heard: what the other side said last.
        mine: the words of what the speaker said before, in order.
        theirs: those of what the other side said before, in order; `heard` is the last of it.
        names: the names of both roles, which must not stand as labels in the words.
        finished: the model ended by itself, not at its token limit.
        phrases: the words of all the domain's references, which say nothing about a document
            (`phrases_of`); those of the speech's own references where None.
    """

    text: str
    instruction: str = ""
    heard: str = ""
    mine: Sequence[tuple[str, ...]] = ()
    theirs: Sequence[tuple[str, ...]] = ()
    names: Sequence[str] = ()
    finished: bool = True
    phrases: Vocabulary | None = None


_TELLTALE = frozenset(
    """ai able artificial assistant context digital fulfil fulfill instruction intention language
    large unable virtual""".split()  # noqa: SIM905
)
"""Without one of these words there is no set phrase, and no need to look for one."""

_SET_PHRASE = re.compile(
    r"\bas an? (?:ai|artificial|language|large|virtual|digital)\b|language model"
    r"|\bi(?: am|'m) an? ai\b|helpful assistant|i can(?:not|'t) fulfil"
    r"|\bi(?:'m| am) (?:unable|not able) to (?:provide|help|assist|fulfil|do that)"
    r"|\b(?:instruction|intention|context):"
)
_OPENING = re.compile(
    r"(?:sure|certainly|of course|absolutely)[,!.:]* (?:here|i can)"
    r"|here (?:is|are) (?:the|some|a few|an?) .{0,40}:"
)
_RUN_ON = regex.compile(r"[.!?](?:(?<=\p{Ll}.)\p{Lu}|(?<=\p{Ll}{2}.)\p{Ll}{3})|[:：]\s*$")
"""A sentence glued to the next, or one that announces another: the model went past its end."""

_NARRATING = frozenset({"answers", "asks", "replies", "responds", "says"})

_LIST_MARK = re.compile(r"^\s*(?:[-*•‣▪◦–—]\s|\(?\d{1,2}[.)]\s|#{1,6}\s)")
_PLACEHOLDER = re.compile(r"\{\{|\}\}|\[(?:[^\]\d]{1,40})\]|<[a-z_ ]{2,30}>|https?://|\*\*|```")


_result = lru_cache(maxsize=4096)(CheckResult)
"""Most results are alike: thousands of dialogues hold each of them for all their turns."""


def result(name: str, value: float | None, passed: bool) -> CheckResult:
    """Return a check's result, one object for all that are equal."""
    return _result(name, value, passed)


@lru_cache(maxsize=4096)
def _together(*results: CheckResult) -> tuple[CheckResult, ...]:
    return results


def together(results: Sequence[CheckResult]) -> tuple[CheckResult, ...]:
    """Return an utterance's results, one object for all utterances whose results are equal."""
    return _together(*results)


def run_checks(
    speech: Speech, utterance: Utterance, scope: Mapping[str, Any], draws: random.Random
) -> list[CheckResult]:
    """Judge an utterance by its speech's checks, and by `finished`, which always applies.

    Args:
        scope: the names that the checks' arguments see.

    Raises:
        ExpressionError: when an argument cannot be evaluated.
    """
    results = [_finished(utterance)]
    for call in speech.checks:
        if call.name in CHECKS:
            arguments = [argument.evaluate(scope, draws) for argument in call.arguments]
            value, passed = CHECKS[call.name](utterance, speech, arguments)
            results.append(result(call.name, value, passed))
    return results


def pending(speech: Speech) -> list[CheckCall]:
    """Return the checks that need an embedding."""
    return [call for call in speech.checks if call.name == "similar"]


def _finished(utterance: Utterance) -> CheckResult:
    return result("finished", None, utterance.finished and bool(words(utterance.text)))


Verdict = tuple[float | None, bool]


def _mentions(utterance: Utterance, speech: Speech, values: Sequence[Any]) -> Verdict:
    share = min((_mentioned(value, utterance.text) for value in values), default=1.0)
    return share, share >= MENTIONED_SHARE


def _mentioned(value: Any, text: str) -> float:
    if isinstance(value, bool) or value is None:
        return 1.0
    if isinstance(value, int):
        return float(bool(number_forms(value).intersection(words(text))))
    if isinstance(value, list | tuple):
        return min((_mentioned(item, text) for item in value), default=1.0)
    if not isinstance(value, str) and isinstance(value, Mapping):
        return _mentioned(value.get("title", value.get("name", "")), text)
    spoken = vocabulary(text)
    wanted = content_words(str(value)) or words(str(value))
    if not wanted:
        return 1.0
    return sum(word in spoken for word in wanted) / len(wanted)


def _says(utterance: Utterance, speech: Speech, values: Sequence[Any]) -> Verdict:
    spoken = words(utterance.text)
    for value in values:
        if isinstance(value, int) and not isinstance(value, bool):
            if not number_forms(value).intersection(spoken):
                return 0.0, False
        elif not all(word in vocabulary(utterance.text) for word in words(str(value))):
            return 0.0, False
    return 1.0, True


def _avoids(utterance: Utterance, speech: Speech, values: Sequence[Any]) -> Verdict:
    """Whether none of these is said: a word, or several in a row."""
    spoken = words(utterance.text)
    for value in values:
        run = words(str(value))
        if not run or run[0] not in spoken:
            continue  # nearly always
        if any(spoken[i : i + len(run)] == run for i in range(len(spoken))):
            return None, False
    return None, True


def _picks(utterance: Utterance, speech: Speech, values: Sequence[Any]) -> Verdict:
    """Whether an item is chosen, by its number (from 1) or by its title and no other's."""
    items, number = list(values[0]), int(values[1])
    spoken = set(words(utterance.text))
    others = {form for i in range(1, len(items) + 1) if i != number for form in number_forms(i)}
    if spoken & (others - {"one"}):  # "the second one" does not choose the first
        return None, False
    if spoken & number_forms(number):
        return None, True
    shares = [_mentioned(item, utterance.text) for item in items]
    if not 0 < number <= len(items) or shares[number - 1] < MENTIONED_SHARE:
        return None, False
    return None, all(s < shares[number - 1] for i, s in enumerate(shares, 1) if i != number)


def _grounded(utterance: Utterance, speech: Speech, values: Sequence[Any]) -> Verdict:
    material = vocabulary(*_texts(values), utterance.heard, utterance.instruction)
    phrases = utterance.phrases
    if phrases is None:
        phrases = vocabulary(*literals(speech))
    known = unknown = run = foreign = 0
    padding = False
    for sentence in sentences(utterance.text):
        before = known, unknown
        carrying = content_words(sentence)
        foreigners = material.strangers(carrying)
        if not foreigners:  # nearly always
            known += len(carrying)
            run = 0 if carrying else run
            continue
        for word in carrying:
            if word not in foreigners:
                known += 1
                run = 0
            elif word not in phrases:
                if is_number(word):
                    return 0.0, False  # an invented number misleads however much else is right
                unknown += 1
                run += 1
                foreign = max(foreign, run)
        own, strange = known - before[0], unknown - before[1]
        # One sentence from the material does not vouch for what is made up behind it.
        padding = padding or (strange >= 2 and own < SENTENCE_SHARE * (own + strange))
    share = known / (known + unknown) if known + unknown else 1.0
    return share, share >= GROUNDED_SHARE and foreign < FOREIGN_RUN and not padding


def phrases_of(domain: Domain) -> Vocabulary:
    """Return the words that the domain's references are written with, outside their templates.

    They are how people talk in this domain, in its own language; examples are left out, because
    what a model takes from an example (another recipe's title) is what grounding must find.
    """
    speeches = [intent.speech for intent in domain.intents.values()]
    speeches += [state.speech for state in domain.states.values()]
    speeches += [edge.speech for edge in domain.edges]
    return Vocabulary(text for speech in speeches for text in literals(speech))


def literals(speech: Speech) -> list[str]:
    """Return a speech's references without what their templates fill in."""
    return [_literal(reference.say.source) for reference in speech.references]


_FILLED_IN = re.compile(r"\{\{.*?\}\}|\{%.*?%\}")


@lru_cache(maxsize=4096)
def _literal(template: str) -> str:
    return _FILLED_IN.sub(" ", template)


def _texts(value: Any) -> Iterable[str]:
    stack = [value]
    while stack:
        one = stack.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, list | tuple):
            stack.extend(one)
        elif isinstance(one, dict):
            stack.extend(one.values())
        elif one is not None and not isinstance(one, bool):
            yield str(one)


def _lists(utterance: Utterance, speech: Speech, values: Sequence[Any]) -> Verdict:
    items = values[0] if values and isinstance(values[0], list) else list(values)
    if not items:
        return 1.0, True
    listing = Listing(items)
    told = listing.told(utterance.text) or [1.0] * len(items)
    shares = [
        min(_mentioned(one, utterance.text), own) for one, own in zip(items, told, strict=True)
    ]
    shown = [share >= MENTIONED_SHARE for share in shares]
    order = listing.order(utterance.text)
    right = order == sorted(order) and not listing.misplaced_number(utterance.text)
    return sum(shown) / len(shown), all(shown) and right


def _rewords(utterance: Utterance, speech: Speech, values: Sequence[Any]) -> Verdict:
    spoken = words(utterance.text)
    mine = set(spoken)
    return None, not any(_echoes(spoken, mine, words(str(value))) for value in values)


def _asks(utterance: Utterance, speech: Speech, values: Sequence[Any]) -> Verdict:
    return None, asks(utterance.text)


def _tells(utterance: Utterance, speech: Speech, values: Sequence[Any]) -> Verdict:
    return None, not asks(utterance.text)


def _max_words(utterance: Utterance, speech: Speech, values: Sequence[Any]) -> Verdict:
    count = len(words(utterance.text))
    return float(count), count <= int(values[0])


def _min_words(utterance: Utterance, speech: Speech, values: Sequence[Any]) -> Verdict:
    count = len(words(utterance.text))
    return float(count), count >= int(values[0])


def _not_boilerplate(utterance: Utterance, speech: Speech, values: Sequence[Any]) -> Verdict:
    return None, not boilerplate(utterance) and not _recites(utterance, speech)


@lru_cache(maxsize=1024)
def _recitals(say: str) -> tuple[tuple[str, ...], frozenset[tuple[str, ...]]]:
    told = words(_literal(say))
    runs = frozenset(told[i : i + RECITED] for i in range(len(told) - RECITED + 1))
    return told[:3], runs


def _recites(utterance: Utterance, speech: Speech) -> bool:
    """Whether the instruction's own words are said, not what they ask for."""
    if speech.say is None:
        return False
    spoken = words(utterance.text)
    beginning, runs = _recitals(speech.say.source)
    if len(beginning) == 3 and spoken[:3] == beginning:
        return True
    return any(spoken[i : i + RECITED] in runs for i in range(len(spoken) - RECITED + 1))


def boilerplate(utterance: Utterance) -> str:
    """Return what makes an utterance boilerplate, or an empty string.

    Boilerplate is what no person says: an assistant's set phrases, list marks, role labels,
    placeholders, an earlier turn again, the other side's words, another text behind the end, or the
    same words over and over.
    """
    text = normalize(utterance.text).strip()
    if _OPENING.match(text):
        return "set phrase"
    spoken = words(utterance.text)
    if "<|" in text or (not _TELLTALE.isdisjoint(spoken) and _SET_PHRASE.search(text)):
        return "set phrase"
    if _LIST_MARK.search(text):
        return "list mark"
    if _PLACEHOLDER.search(text):
        return "placeholder"
    if ":" in text and _labels(tuple(utterance.names)).search(text):
        return "role label"
    if not _NARRATING.isdisjoint(spoken) and _narrated(tuple(utterance.names)).search(text):
        return "role label"
    if len(spoken) >= 3 and (spoken in utterance.mine or spoken in utterance.theirs):
        return "said before"
    least = ECHO_SHARE * len(spoken)
    mine = set(spoken)
    # Of fewer words no echo of that length can come, and thousands of utterances are short.
    if any(len(said) >= least and _echoes(spoken, mine, said) for said in utterance.theirs):
        return "echo"
    if _RUN_ON.search(utterance.text):
        return "run on"
    if _loops(spoken):
        return "loop"
    return ""


@lru_cache(maxsize=64)
def _labels(names: tuple[str, ...]) -> regex.Pattern[str]:
    return regex.compile(rf"(?:^|[.!?*\"”]\s*){_anyone(names)}\s*:")


@lru_cache(maxsize=64)
def _narrated(names: tuple[str, ...]) -> regex.Pattern[str]:
    return regex.compile(rf"\bthe {_anyone(names)} (?:\w+ )?(?:{'|'.join(sorted(_NARRATING))})\b")


def _anyone(names: tuple[str, ...]) -> str:
    known = [regex.escape(normalize(name)) for name in names if name]
    # Instruct models fall back into the labels of the transcripts that they were trained on.
    known += ["assistant", "human", "system", "user"]
    return f"(?:{'|'.join(known)})"


def _echoes(spoken: Sequence[str], mine: set[str], heard: tuple[str, ...]) -> bool:
    """Whether most of what is said is what was just heard, in the same order.

    Args:
        mine: the words of `spoken`, of which one set serves whatever was heard.
    """
    if len(spoken) < 4:
        return False
    known = mine.intersection(heard)
    # Words in common but for repetitions: few, nearly always, and no more is to be done.
    if len(known) < 2 or sum(word in known for word in spoken) < ECHO_SHARE * len(spoken):
        return False
    row = [0] * (len(heard) + 1)  # longest common subsequence, one row at a time
    for word in spoken:
        last = 0
        for place, other in enumerate(heard, start=1):
            above = row[place]
            row[place] = last + 1 if word == other else max(above, row[place - 1])
            last = above
    return row[-1] >= ECHO_SHARE * len(spoken)


def _loops(spoken: tuple[str, ...]) -> bool:
    """Whether a clause is said twice, or a few words in a row three times."""
    if len(spoken) - len(set(spoken)) < 5:
        return False  # four words in a row for the third time repeat five words at least
    return _repeated(spoken, 8) >= 2 or _repeated(spoken, 4) >= 3


def _repeated(spoken: tuple[str, ...], length: int) -> int:
    """Return how often the most frequent words in a row of that length are said."""
    runs = Counter(spoken[i : i + length] for i in range(len(spoken) - length + 1))
    return max(runs.values(), default=0)


CHECKS: dict[str, Callable[[Utterance, Speech, Sequence[Any]], Verdict]] = {
    "mentions": _mentions,
    "says": _says,
    "grounded": _grounded,
    "lists": _lists,
    "asks": _asks,
    "avoids": _avoids,
    "picks": _picks,
    "rewords": _rewords,
    "tells": _tells,
    "max_words": _max_words,
    "min_words": _min_words,
    "not_boilerplate": _not_boilerplate,
}
