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
from functools import lru_cache
from itertools import pairwise
from typing import Any

from specs.check_names import ARGUMENT_TYPES
from specs.domain import CheckCall, Domain, SlotType, Speech
from specs.expressions import EvaluationError
from specs.listing import Listing, title_of
from specs.records import CheckResult
from specs.utterance import Utterance, boilerplate, echoes
from specs.values import typed
from specs.words import (
    Vocabulary,
    asks,
    content_words,
    figure,
    figures,
    find,
    heft,
    is_number,
    misspelt,
    number_forms,
    sentences,
    unspaced,
    vocabulary,
    without,
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

BEGUN = 3
"""The same, where both begin with them."""

COMMON_LEAST = 3
"""Documents that must use a word before it can be common to them."""

COMMON_SAMPLE = 1000
"""Documents that are looked through for common words."""

MENTIONED_SHARE = 0.6
"""Least share of a value's content words that an utterance must hold to mention it."""

SIMILARITY = 0.5
"""Default least cosine between an utterance and the nearest reference (all-MiniLM-L6-v2)."""


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
        ExpressionError: when an argument cannot be evaluated, or is not what the check takes.
    """
    results = [_finished(utterance)]
    for call in speech.checks:
        if call.name in CHECKS:
            value, passed = CHECKS[call.name](utterance, speech, values_of(call, scope, draws))
            results.append(result(call.name, value, passed))
    return results


def values_of(
    call: CheckCall, scope: Mapping[str, Any], draws: random.Random | None = None
) -> list[Any]:
    """Return the values of a check's arguments, in the types that it takes.

    Raises:
        ExpressionError: when one cannot be evaluated, or is of another type.
    """
    # All in their order: what they draw, they draw from one generator.
    values = [argument.evaluate(scope, draws) for argument in call.arguments]
    for place, kind in enumerate(ARGUMENT_TYPES.get(call.name, ())[: len(values)]):
        values[place] = _typed(kind, call, place, values[place])
    return values


def _typed(kind: SlotType, call: CheckCall, place: int, value: Any) -> Any:
    try:
        taken = typed(kind, value)
    except (TypeError, ValueError, OverflowError):
        taken = None
    if taken is None:
        reason = f"`{call.name}` takes a value of the type {kind} here, not {repr(value)[:80]}"
        raise EvaluationError(call.arguments[place], reason, undefined=False)
    return taken


def threshold(call: CheckCall, scope: Mapping[str, Any]) -> float:
    """Return the least similarity that a call of `similar` wants.

    Raises:
        ExpressionError: when it cannot be evaluated, or is no number.
    """
    least: float
    (least,) = values_of(call, scope) or [SIMILARITY]
    return least


def pending(speech: Speech) -> list[CheckCall]:
    """Return the checks that need an embedding."""
    return [call for call in speech.checks if call.name == "similar"]


def _finished(utterance: Utterance) -> CheckResult:
    return result("finished", None, utterance.finished and bool(words(utterance.text)))


Verdict = tuple[float | None, bool]


def _mentions(utterance: Utterance, speech: Speech, values: Sequence[Any]) -> Verdict:
    share = min((_mentioned(value, utterance.text) for value in values), default=1.0)
    return share, share >= MENTIONED_SHARE and not _garbled(values, utterance.text)


def mentions(text: str, value: Any) -> bool:
    """Whether most of a value's words are said."""
    return _mentioned(value, text) >= MENTIONED_SHARE


def _mentioned(value: Any, text: str) -> float:
    if isinstance(value, bool) or value is None:
        return 1.0
    if isinstance(value, int | float):
        return float(figure(value) in figures(text))
    if isinstance(value, list | tuple):
        return min((_mentioned(item, text) for item in value), default=1.0)
    if not isinstance(value, str) and isinstance(value, Mapping):
        return _mentioned(title_of(value), text)
    spoken = vocabulary(text)
    wanted = content_words(str(value)) or words(str(value))
    if not wanted:
        return 1.0
    return sum(word in spoken for word in wanted) / len(wanted)


def _garbled(values: Iterable[Any], text: str) -> bool:
    """Whether a word of a text or a title came out as almost it: `Barowen` for `Barnowl`.

    Where it would stand: beside the word that stands beside it. What is then named is nothing that
    there is, however many words are right.
    """
    spoken = words(text)
    for value in values:
        if isinstance(value, list | tuple):
            if _garbled(value, text):
                return True
            continue
        named = words(title_of(value) if isinstance(value, Mapping) else str(value))
        missing = vocabulary(text).strangers(named)
        pairs = {*pairwise(named)} if missing else set()
        for one, other in pairwise(spoken):
            for before, behind in pairs:
                if before in missing and other == behind and misspelt(before, one):
                    return True
                if behind in missing and one == before and misspelt(behind, other):
                    return True
    return False


def says(text: str, value: Any) -> bool:
    """Whether words say a value as it is: a number, or words in a row."""
    return find(_as_said(value), figures(text)) >= 0


def _says(utterance: Utterance, speech: Speech, values: Sequence[Any]) -> Verdict:
    """Whether each is said as it is: a number, or words in a row."""
    said = all(says(utterance.text, value) for value in values)
    return float(said), said


def _says_any(utterance: Utterance, speech: Speech, values: Sequence[Any]) -> Verdict:
    """Whether one of these is said, each as `says` takes it."""
    spoken = figures(utterance.text)
    return None, any(find(_as_said(value), spoken) >= 0 for value in values)


def _as_said(value: Any) -> tuple[str, ...]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (figure(value),)
    return figures(str(value))


def _avoids(utterance: Utterance, speech: Speech, values: Sequence[Any]) -> Verdict:
    """Whether none of these is said: a word, or several in a row."""
    spoken = words(utterance.text)
    for value in values:
        run = words(str(value))
        if run and find(run, spoken) >= 0:
            return None, False
    return None, True


def _begins_not(utterance: Utterance, speech: Speech, values: Sequence[Any]) -> Verdict:
    """Whether no sentence begins with any of these."""
    begun = [words(sentence) for sentence in sentences(utterance.text)]
    runs = [run for value in values if (run := words(str(value)))]
    return None, not any(spoken[: len(run)] == run for spoken in begun for run in runs)


def _picks(utterance: Utterance, speech: Speech, values: Sequence[Any]) -> Verdict:
    """Whether an item is chosen, by its number (from 1) or by its title and no other's.

    Numbers within a title that is said in full choose nothing.
    """
    items, number = values[0], values[1]
    titles = [words(title_of(item)) for item in items]
    spoken = set(without(titles, words(utterance.text)))
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
    known = unknown = 0
    run = foreign = 0.0
    padding = False
    for sentence in sentences(utterance.text):
        before, strange = (known, unknown), 0.0
        carrying = content_words(sentence)
        foreigners = material.strangers(carrying)
        if not foreigners:  # nearly always
            known += len(carrying)
            run = 0 if carrying else run
            continue
        nowhere = phrases.strangers(foreigners)
        for place, word in enumerate(carrying):
            if word not in foreigners:
                known += 1
                run = 0
            elif word in nowhere and not _joins(carrying, place, nowhere):
                if is_number(word) or (word not in utterance.common and word in _lent(speech)):
                    # An invented number misleads however much else is right, and so does what
                    # belongs to an example: leeks in a curry.
                    return 0.0, False
                unknown += 1
                strange += heft(word)
                run += heft(word)
                foreign = max(foreign, run)
        own, other = known - before[0], unknown - before[1]
        # One sentence from the material does not vouch for what is made up behind it.
        padding = padding or (strange >= 2 and own < SENTENCE_SHARE * (own + other))
    share = known / (known + unknown) if known + unknown else 1.0
    return share, share >= GROUNDED_SHARE and foreign < FOREIGN_RUN and not padding


def _lent(speech: Speech) -> Vocabulary:
    """Return the words of the data that the speech's examples were written for."""
    return vocabulary(*(text for one in speech.examples for text in _texts(one.with_)))


def _joins(spoken: Sequence[str], place: int, nowhere: set[str]) -> bool:
    """Whether a pair from nowhere only joins two that are not, and so holds nothing new."""
    pair = spoken[place]
    if not unspaced(pair) or not 0 < place < len(spoken) - 1:
        return False
    before, behind = spoken[place - 1], spoken[place + 1]
    overlapping = before[-1] == pair[0] and pair[-1] == behind[0]
    return overlapping and nowhere.isdisjoint((before, behind))


def phrases_of(domain: Domain) -> Vocabulary:
    """Return the words that the domain's references are written with, outside their templates.

    They are how people talk in this domain, in its own language; examples are left out, because
    what a model takes from an example (another recipe's title) is what grounding must find.
    """
    speeches = [intent.speech for intent in domain.intents.values()]
    speeches += [state.speech for state in domain.states.values()]
    speeches += [edge.speech for edge in domain.edges]
    return Vocabulary(text for speech in speeches for text in literals(speech))


def common_of(domain: Domain) -> Vocabulary:
    """Return the words that half of the domain's documents use, which tell none from another.

    They are the little words of its language, whichever that is, and those of its trade.
    """
    documents = domain.documents[:COMMON_SAMPLE]
    least = max(COMMON_LEAST, len(documents) / 2)
    counts: Counter[str] = Counter()
    for document in documents:
        counts.update({word for text in _texts(document.fields) for word in words(text)})
    return Vocabulary(word for word, count in counts.items() if count >= least)


def literals(speech: Speech) -> list[str]:
    """Return a speech's references without what their templates fill in."""
    return [_literal(reference.say.source) for reference in speech.references]


_FILLED_IN = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.DOTALL)


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
    told = zip(items, listing.told(utterance.text), strict=True)
    shown = [min(_mentioned(item, utterance.text), own) >= MENTIONED_SHARE for item, own in told]
    order = listing.order(utterance.text)
    right = order == sorted(order) and not listing.misplaced_number(utterance.text)
    right = right and not _garbled(items, utterance.text)
    return sum(shown) / len(shown), all(shown) and right


def _rewords(utterance: Utterance, speech: Speech, values: Sequence[Any]) -> Verdict:
    spoken = words(utterance.text)
    mine = set(spoken)
    return None, not any(echoes(spoken, mine, words(str(value))) for value in values)


def _asks(utterance: Utterance, speech: Speech, values: Sequence[Any]) -> Verdict:
    return None, asks(utterance.text)


def _asks_last(utterance: Utterance, speech: Speech, values: Sequence[Any]) -> Verdict:
    """Whether it ends with its question: what stands behind it is often no part of the talk."""
    said = [sentence for sentence in sentences(utterance.text) if words(sentence)]
    return None, bool(said) and asks(said[-1])


def _tells(utterance: Utterance, speech: Speech, values: Sequence[Any]) -> Verdict:
    return None, not asks(utterance.text)


def _max_words(utterance: Utterance, speech: Speech, values: Sequence[Any]) -> Verdict:
    count = len(words(utterance.text))
    return float(count), count <= values[0]


def _min_words(utterance: Utterance, speech: Speech, values: Sequence[Any]) -> Verdict:
    count = len(words(utterance.text))
    return float(count), count >= values[0]


def _not_boilerplate(utterance: Utterance, speech: Speech, values: Sequence[Any]) -> Verdict:
    return None, not boilerplate(utterance) and not _recites(utterance, speech)


@lru_cache(maxsize=1024)
def _recitals(say: str) -> tuple[tuple[str, ...], int, frozenset[tuple[str, ...]]]:
    """Return an instruction's beginning, how many of its words in a row tell, and all such rows."""
    told = words(_literal(say))
    size = sum(map(heft, told)) / len(told) if told else 1.0  # of its words, on average
    begun, recited = round(BEGUN / size), round(RECITED / size)
    runs = frozenset(told[i : i + recited] for i in range(len(told) - recited + 1))
    return told[:begun] if len(told) >= begun else (), recited, runs


def _recites(utterance: Utterance, speech: Speech) -> bool:
    """Whether the instruction's own words are said, not what they ask for."""
    if speech.say is None:
        return False
    spoken = words(utterance.text)
    beginning, recited, runs = _recitals(speech.say.source)
    if beginning and spoken[: len(beginning)] == beginning:
        return True
    return any(spoken[i : i + recited] in runs for i in range(len(spoken) - recited + 1))


CHECKS: dict[str, Callable[[Utterance, Speech, Sequence[Any]], Verdict]] = {
    "mentions": _mentions,
    "says": _says,
    "says_any": _says_any,
    "grounded": _grounded,
    "lists": _lists,
    "asks": _asks,
    "asks_last": _asks_last,
    "avoids": _avoids,
    "begins_not": _begins_not,
    "picks": _picks,
    "rewords": _rewords,
    "tells": _tells,
    "max_words": _max_words,
    "min_words": _min_words,
    "not_boilerplate": _not_boilerplate,
}
