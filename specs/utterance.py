"""What was said, and whether it is something that no person says.

Invariants: deterministic, and holding in any script (`specs.words`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import regex

from specs.words import Vocabulary, heft, normalize, sentences, words

ECHO_SHARE = 0.8
"""Share of an utterance's words, in order, that makes it an echo of what was just heard."""


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
        common: the words that half of the documents use (`common_of`).
    """

    text: str
    instruction: str = ""
    heard: str = ""
    mine: Sequence[tuple[str, ...]] = ()
    theirs: Sequence[tuple[str, ...]] = ()
    names: Sequence[str] = ()
    finished: bool = True
    phrases: Vocabulary | None = None
    common: Vocabulary = field(default_factory=lambda: Vocabulary(()))


_TELLTALE = frozenset(
    """ai able artificial assistant assistants context digital fulfil fulfill instruction intention
    language large unable virtual""".split()  # noqa: SIM905
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
    mine = set(spoken)
    if any(echoes(spoken, mine, said) for said in utterance.theirs):
        return "echo"
    if _RUN_ON.search(utterance.text):
        return "run on"
    if _loops(spoken) or _says_twice(utterance.text):
        return "loop"
    return ""


@lru_cache(maxsize=64)
def _labels(names: tuple[str, ...]) -> regex.Pattern[str]:
    # An article may stand before it, of up to three letters in most languages that have any.
    return regex.compile(rf"(?:^|[.!?*\"”]\s*)(?:\w{{1,3}} )?{_anyone(names)}\s*:")


@lru_cache(maxsize=64)
def _narrated(names: tuple[str, ...]) -> regex.Pattern[str]:
    return regex.compile(rf"\bthe {_anyone(names)} (?:\w+ )?(?:{'|'.join(sorted(_NARRATING))})\b")


def _anyone(names: tuple[str, ...]) -> str:
    known = [regex.escape(normalize(name)) for name in names if name]
    # Instruct models fall back into the labels of the transcripts that they were trained on.
    known += ["assistant", "human", "system", "user"]
    return f"(?:{'|'.join(known)})"


def echoes(spoken: Sequence[str], mine: set[str], heard: tuple[str, ...]) -> bool:
    """Whether most of what is said is what was just heard, in the same order.

    Args:
        mine: the words of `spoken`, of which one set serves whatever was heard.
    """
    least = ECHO_SHARE * len(spoken)
    if len(spoken) < 4 or len(heard) < least:
        return False
    known = mine.intersection(heard)
    # Words in common but for repetitions: few, nearly always, and no more is to be done.
    if len(known) < 2 or sum(word in known for word in spoken) < least:
        return False
    row = [0] * (len(heard) + 1)  # longest common subsequence, one row at a time
    for word in spoken:
        last = 0
        for place, other in enumerate(heard, start=1):
            above = row[place]
            row[place] = last + 1 if word == other else max(above, row[place - 1])
            last = above
    return row[-1] >= least


def _loops(spoken: tuple[str, ...]) -> bool:
    """Whether a clause is said twice, or a few words in a row three times."""
    if len(spoken) - len(set(spoken)) < 5:
        return False  # four words in a row for the third time repeat five words at least
    return _repeated(spoken, 8) >= 2 or _repeated(spoken, 4) >= 3


def _says_twice(text: str) -> bool:
    """Whether a sentence of three words or more is said again within the utterance."""
    said = [words(sentence) for sentence in sentences(text)]
    long = [sentence for sentence in said if sum(map(heft, sentence)) >= 3]
    return len(set(long)) < len(long)


def _repeated(spoken: tuple[str, ...], length: int) -> int:
    """Return how often the most frequent words in a row of that length are said."""
    runs = Counter(spoken[i : i + length] for i in range(len(spoken) - length + 1))
    return max(runs.values(), default=0)
