"""Stretches of text as token ids, each tokenized by itself so that the stretches can be told apart.

Invariant: the ids of a stretch depend on it alone, and on whether it is the first: what was learned
as one sequence is found again, stretch by stretch, when a prompt ends in the middle of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a chat's text.

    Attributes:
        trained: loss falls on it.
        written: the agent's own words, in which a mark of the template is spelled out.
    """

    text: str
    trained: bool = False
    written: bool = False


class SegmentTokenizer:
    """Tokenizes stretches, also with a tokenizer that puts a blank before whatever it is given."""

    def __init__(self, tokenizer: Any) -> None:
        """Try out whether it does."""
        self._tokenizer = tokenizer
        self._blank = not _joins(tokenizer)

    def ids(self, segments: Sequence[Segment]) -> list[list[int]]:
        """Return each stretch's ids, without what the tokenizer puts around whole texts."""
        found: list[list[int]] = [[] for _ in segments]
        for written in (False, True):
            places = [place for place, one in enumerate(segments) if one.written is written]
            texts = [segments[place].text for place in places]
            many = self._behind(texts, written) if self._blank else self._plain(texts, written)
            if self._blank and places[:1] == [0]:
                many[:1] = self._plain(texts[:1], written)
            for place, ids in zip(places, many, strict=True):
                found[place] = ids
        return found

    def _behind(self, texts: list[str], written: bool) -> list[list[int]]:
        """Return the ids of texts in the middle of others, where they have no blank of their own.

        SentencePiece puts it before the whole text; the line's end that is put there takes it.
        """
        anchor, *anchored = self._plain(["\n", *(f"\n{text}" for text in texts)], written)
        alone = self._plain(texts, written)
        return [
            ids[len(anchor) :] if ids[: len(anchor)] == anchor else bare
            for ids, bare in zip(anchored, alone, strict=True)
        ]

    def _plain(self, texts: list[str], written: bool) -> list[list[int]]:
        if not texts:
            return []
        found = self._tokenizer(
            texts,
            add_special_tokens=False,
            split_special_tokens=written,
            return_attention_mask=False,
        )
        ids: list[list[int]] = found["input_ids"]
        return ids


def _joins(tokenizer: Any) -> bool:
    """Whether texts tokenized one by one make the same text together."""
    one, other = tokenizer(["a", "b"], add_special_tokens=False)["input_ids"]
    return bool(tokenizer.decode([*one, *other]) == "ab")


def first_mark(tokenizer: Any) -> str:
    """Return the mark that the tokenizer itself puts before a text; empty when it puts none."""
    ids = tokenizer("a")["input_ids"]
    starts = tokenizer.bos_token is not None and ids[:1] == [tokenizer.bos_token_id]
    return str(tokenizer.bos_token) if starts else ""


def marks_of(tokenizer: Any) -> list[str]:
    """Return the texts that are one token wherever they stand (`<|im_end|>`, `</s>`)."""
    added = getattr(tokenizer, "added_tokens_decoder", None)
    # mistral_common's tokenizers have a method of that name, which raises.
    texts = map(str, added.values()) if isinstance(added, Mapping) else ()
    return sorted({*tokenizer.all_special_tokens, *texts})
