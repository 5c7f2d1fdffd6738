"""Words in any script, for checks and measures: what is a word, and when two are the same.

Scripts written without spaces are cut into overlapping pairs of characters, which is what text
retrieval does with them; elsewhere a word is a run of letters, marks and digits.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterable
from difflib import SequenceMatcher
from functools import lru_cache

import regex

_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
_WORD = regex.compile(
    rf"[{_UNSPACED}\p{{M}}ー]+|\p{{N}}+(?:[.,/:]\p{{N}}+)*|(?:(?![{_UNSPACED}])[\p{{L}}\p{{M}}'’])+"
)
_ASCII_WORD = re.compile(r"[0-9]+(?:[.,/:][0-9]+)*|[a-z']+")
"""`_WORD` of lower-case ASCII, in half the time."""

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])")
_UNSPACED_RUN = regex.compile(rf"[{_UNSPACED}]")
_QUESTION = re.compile("[?？؟፧\u037e]")
_FOREIGN_DIGIT = regex.compile(r"(?V1)[\p{Nd}--[0-9]]")
_THOUSANDS = re.compile(r",(?<=[0-9],)(?=[0-9]{3}(?![0-9]))")
_ARTICLES = regex.compile(r"\b(?:(?:[وفبك]?ال|لل)(?=\w{3}))+")
"""The Arabic article, with what clings to it in turn; again, since a root may begin like one."""

_GREEK = regex.compile(r"\p{Greek}")

# What may stand in any English utterance without saying anything about a document.
FUNCTION_WORDS = frozenset(
    """a about above after again all almost already alright also am an and another any anybody
    anyone anything are aren't as ask at away back be because been before being best better
    between big both bring but by can can't choose come could did didn't do does doesn't doing
    don't done down each easy either else enjoy enough even ever every everybody everyone
    everything exactly few final finally find fine first for from further get give glad go going
    gone good got great had happy has have haven't having he hello help her here here's hey hi
    him his hope how i i'd i'll i'm i've if in instead into is isn't it it'll it's its just keep
    know last later least leave left let let's like little long look looking lot lovely make
    makes many may maybe me mean might moment more most much must my need needs never new next
    nice no not nothing now of off ok okay on once one ones only onto or other our out over own
    part perfect please pleased pleasure point quite rather ready really right same say see set
    shall she should show since so some somebody someone something soon sorry sort start started
    step steps still such sure take takes tell than thank thanks that that's the their them then
    there there's these they thing things think this those though three time to today together
    tonight too total try turn two under until up us use very want was way we we'll we're well
    were what what's when where which while who why will wish with won't would yes yet you you'd
    you'll you're you've your yourself""".split()  # noqa: SIM905
)

_NUMBERS = (  # noqa: SIM905
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
).split()
_ORDINALS = (  # noqa: SIM905
    "zeroth first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth "
    "thirteenth fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth"
).split()
_TENS = {
    word: 10 * ten
    for ten, word in enumerate(
        "twenty thirty forty fifty sixty seventy eighty ninety".split(),  # noqa: SIM905
        start=2,
    )
}
_SPELT: dict[str, int] = {
    **{word: number for number, word in enumerate(_NUMBERS)},
    **{word: number for number, word in enumerate(_ORDINALS)},
    **_TENS,
    **{f"{word[:-1]}ieth": number for word, number in _TENS.items()},
}
"""The numbers that are one word in English."""


def normalize(text: str) -> str:
    """Return the text in NFKC and case-folded, with plain apostrophes and digits."""
    if text.isascii():
        return text.lower()  # the same, sooner
    text = unicodedata.normalize("NFKC", text).replace("’", "'").casefold()
    return _FOREIGN_DIGIT.sub(_plain_digit, text)


def _plain_digit(match: regex.Match[str]) -> str:
    # `regex` may know digits of a later Unicode than Python does: those stay as they are.
    return str(unicodedata.decimal(match[0], match[0]))


@lru_cache(maxsize=8192)
def words(text: str) -> tuple[str, ...]:
    """Return the words of a text in order, normalized; pairs of characters in unspaced scripts.

    A number is a word without the commas between its thousands, and a word one without `'s` or the
    Arabic article.
    """
    text = normalize(text)
    plain = text.isascii()
    if "," in text:
        text = _THOUSANDS.sub("", text)
    if not plain:
        text = _ARTICLES.sub("", text)
    matches = (_ASCII_WORD if plain else _WORD).findall(text)
    if plain and "'" not in text:
        return tuple(map(sys.intern, matches))  # the same, sooner
    found: list[str] = []
    for match in matches:
        if not plain and unspaced(match):
            pairs = [match[i : i + 2] for i in range(max(1, len(match) - 1))]
            found.extend(pairs)
        else:
            word = match.strip("'") if "'" in match else match
            if word:
                # One object for each word: thousands of dialogues hold the words of their turns.
                found.append(sys.intern(word.removesuffix("'s")))
    return tuple(found)


def unspaced(word: str) -> bool:
    """Whether a word is a pair of characters, or one alone, of a script without spaces."""
    return not word.isascii() and _UNSPACED_RUN.search(word) is not None


def heft(word: str) -> float:
    """Return how much of a word it is: pairs of characters overlap, and two make about one word."""
    return 0.5 if unspaced(word) else 1.0


def find(run: tuple[str, ...], spoken: tuple[str, ...]) -> int:
    """Return where words stand in a row among those spoken, or -1; no words stand at the start.

    One character of an unspaced script stands in every pair that holds it, and a Korean noun in
    front of its particle.
    """
    if not run:
        return 0
    if run[0] not in spoken and run[0].isascii():
        return -1  # nearly always
    length, plain = len(run), all(map(str.isascii, run))
    for start in range(len(spoken) - length + 1):
        there = spoken[start : start + length]
        if there == run or (not plain and all(map(_stands, run, there))):
            return start
    return -1


def without(runs: Iterable[tuple[str, ...]], spoken: tuple[str, ...]) -> tuple[str, ...]:
    """Return what is spoken but for these rows of words, wherever they stand in it."""
    for run in sorted(filter(None, runs), key=len, reverse=True):  # one may be a part of another
        while (start := find(run, spoken)) >= 0:
            spoken = spoken[:start] + spoken[start + len(run) :]
    return spoken


def _stands(word: str, spoken: str) -> bool:
    if word == spoken or word.isascii():
        return word == spoken
    if len(word) == 1 and unspaced(word):
        return word in spoken
    return word >= _HANGUL and spoken.startswith(word) and spoken[len(word) :] in _PARTICLES


def holds(text: str, phrases: Iterable[tuple[str, ...]]) -> bool:
    """Whether a text holds one of the phrases, which are words already."""
    spoken = words(text)
    return any(find(phrase, spoken) >= 0 for phrase in phrases)


def sentences(text: str) -> list[str]:
    """Return the sentences of a text, as far as their marks tell."""
    return _SENTENCE_END.split(text)


def is_number(word: str) -> bool:
    """Whether a word is written in digits; a character that means a number is a word's part too."""
    return word[:1].isdecimal()


@lru_cache(maxsize=8192)
def content_words(text: str) -> tuple[str, ...]:
    """Return the words that carry a document's content: no function words, no single letters."""
    return tuple(filter(_carries_content, words(text)))


@lru_cache(maxsize=65_536)
def _carries_content(word: str) -> bool:
    return is_number(word) or (word not in FUNCTION_WORDS and (len(word) > 1 or not word.isascii()))


_ENDINGS = frozenset(
    """d e ed en er es est f fe ied ier ies ing ly n r s st ves y""".split()  # noqa: SIM905
) | {""}
"""What English words of one stem end in, the stem itself among them."""

_PARTICLES = frozenset(
    """가 같이 과 까지 께 나 는 도 들 랑 로 를 마다 만 밖에 보다 부터 아 야 에 에게 에는 에서 에서는
    에도 예요 와 요 으로 은 을 의 이 이나 이랑 이야 이에요 처럼 하고 한테""".split()  # noqa: SIM905
) | {""}
"""What clings to a Korean noun, whose stem may be a single syllable."""

_HANGUL = "가"
"""The first syllable; letters of the scripts that are written with spaces stand before it."""

_LONG_STEM = 6
"""Letters in common that tell of one word whatever it ends in; fewer stand in `doubt` and `dough`,
`chicken` and `chickpeas` too."""


def same(one: str, other: str) -> bool:
    """Whether two words are forms of one word: equal, or alike but for a short ending."""
    if one == other:
        return True
    short, long = (one, other) if len(one) <= len(other) else (other, one)
    least = 1 if short >= _HANGUL else 3
    for stem in (len(short), len(short) - 1, len(short) - 2):
        if stem >= least and long.startswith(short[:stem]):
            break
    else:
        return False
    left, right = short[stem:], long[stem:]
    if stem < 3:
        return left in _PARTICLES and right in _PARTICLES
    if len(right) > 3 + (not left) or is_number(one):
        return False
    if stem >= _LONG_STEM or not (short.isascii() and long.isascii()):
        return len(right) <= 3
    if not left and right[0] == short[-1]:
        right = right[1:]  # stir, stirred
    return left in _ENDINGS and right in _ENDINGS


_MISSPELT = 0.7
"""Least share of letters in common, in their order, of a word and what came out in its place."""

_SPELT_OUT = 5
"""Letters below which two words have most in common by chance."""


def misspelt(word: str, said: str) -> bool:
    """Whether one word came out for another: not a form of it, but most letters are the same."""
    if min(len(word), len(said)) < _SPELT_OUT or word[0] != said[0]:
        return False
    if word.startswith(said) or said.startswith(word) or same(_spelling(word), _spelling(said)):
        return False
    return SequenceMatcher(None, word, said, autojunk=False).ratio() >= _MISSPELT


def _spelling(word: str) -> str:
    """Return a word without what English is spelt with or without: colour, chilli, yoghurt."""
    for spelt, other in (("our", "or"), ("gh", "g"), ("ae", "e"), ("s", "z")):
        word = word.replace(spelt, other)
    word = re.sub(r"re$", "er", word)
    return re.sub(r"(.)\1", r"\1", word)


def _head(word: str) -> str:
    """Return what all forms of a word begin with."""
    return word[:1] if word >= _HANGUL else word[:3]


FEW = 4
"""Words that a vocabulary looks for one by one: most of what is asked for is there as it is."""

STRANGERS = 10_000
"""Words that a vocabulary remembers not to hold; a model may come up with any number of them."""


class Vocabulary:
    """A set of words that knows their forms (`same`), for many look-ups against one material.

    It holds each character of its pairs too, which is a word of its own where it stands alone.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._words: set[str] = set()
        self._words.update(*map(words, texts))
        self._by_head: dict[str, list[str]] | None = None
        self._looked = 0
        self._strangers: set[str] = set()

    def strangers(self, several: Iterable[str]) -> set[str]:
        """Return those of several words that are not in it."""
        return {word for word in several if word not in self._words and word not in self}

    def __contains__(self, word: str) -> bool:
        if word in self._words:
            return True
        if word in self._strangers:
            return False
        if any(same(word, known) for known in self._alike(_head(word))):
            return True
        if len(word) == 1 and unspaced(word) and any(word in known for known in self._words):
            return True
        if len(self._strangers) < STRANGERS:
            self._strangers.add(word)
        return False

    def _alike(self, head: str) -> Iterable[str]:
        """Return the words that begin so; they are sorted only when many are asked for."""
        self._looked += 1
        if self._looked <= FEW:
            return [known for known in self._words if known.startswith(head)]
        if self._by_head is None:
            self._by_head = {}
            for known in self._words:
                self._by_head.setdefault(_head(known), []).append(known)
        return self._by_head.get(head, ())


@lru_cache(maxsize=128)
def vocabulary(*texts: str) -> Vocabulary:
    """Return the vocabulary of texts; candidates of one turn are held against the same ones."""
    return Vocabulary(texts)


@lru_cache(maxsize=1024)
def number_forms(number: int) -> frozenset[str]:
    """Return the words that a number may be: digits, or one English word."""
    return frozenset({str(number), *(word for word, value in _SPELT.items() if value == number)})


def figure(number: float) -> str:
    """Return a number as `figures` gives it: whole where it is, and without a sign.

    A sign is no part of a word, in any script.
    """
    number = abs(number)
    return str(int(number) if number % 1 == 0 else number)


@lru_cache(maxsize=8192)
def figures(text: str) -> tuple[str, ...]:
    """Return the words of a text, with digits for the numbers that are spelt in English."""
    spoken = words(text)
    if _SPELT.keys().isdisjoint(spoken):
        return spoken
    found: list[str] = []
    tens = 0  # of the word before, to which units may belong
    for word in spoken:
        number = _SPELT.get(word)
        if number is None:
            found.append(word)
        elif tens and 0 < number < 10:
            found[-1] = str(tens + number)
        else:
            found.append(str(number))
        tens = _TENS.get(word, 0)
    return tuple(found)


def asks(text: str) -> bool:
    """Whether the text holds a question mark of any script."""
    if text.isascii():
        return "?" in text
    return bool(_QUESTION.search(text)) or (";" in text and bool(_GREEK.search(text)))
