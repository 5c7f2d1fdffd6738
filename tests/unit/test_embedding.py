from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.retrieval.embedding import (
    LexicalEmbedder,
    Vectors,
    corpus_vectors,
    hub_digest,
    load_embedder,
    vectors_digest,
)
from specs.errors import RetrievalError

TEXTS = ("Roasted tomato soup with basil", "Lemon drizzle cake", "番茄汤的做法", "سوپ گوجه فرنگی")


class Counting(LexicalEmbedder):
    def __init__(self) -> None:
        self.calls = 0

    def encode(self, texts: Sequence[str]) -> Vectors:
        self.calls += 1
        return super().encode(texts)


@pytest.mark.parametrize(
    ("query", "nearest"),
    [("tomato soups", 0), ("a cake with lemons", 1), ("番茄汤", 2), ("گوجه", 3)],
)
def test_lexical_finds_what_shares_words_in_any_script(query: str, nearest: int) -> None:
    embedder = LexicalEmbedder()
    scores = embedder.encode(TEXTS) @ embedder.encode([query])[0]
    assert int(np.argmax(scores)) == nearest


@given(st.lists(st.text(max_size=30), max_size=4))
def test_lexical_vectors_have_length_one_or_none(texts: list[str]) -> None:
    vectors = LexicalEmbedder().encode(texts)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(texts), LexicalEmbedder.size)
    lengths = np.linalg.norm(vectors, axis=1)
    assert np.all((np.abs(lengths - 1) < 1e-5) | (lengths == 0))


def test_vectors_are_computed_once_and_again_when_their_file_is_damaged(tmp_path: Path) -> None:
    embedder = Counting()
    first = corpus_vectors(embedder, TEXTS, tmp_path)
    assert np.array_equal(first, corpus_vectors(embedder, TEXTS, tmp_path))
    assert embedder.calls == 1
    (file,) = tmp_path.iterdir()
    assert file.name == f"{vectors_digest(embedder, TEXTS)}.npy"
    for damage in (b"", file.read_bytes()[:-7], b"no vectors at all"):
        file.write_bytes(damage)
        assert np.array_equal(first, corpus_vectors(embedder, TEXTS, tmp_path))
    assert embedder.calls == 4
    corpus_vectors(embedder, TEXTS[:2], tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    assert len(corpus_vectors(LexicalEmbedder(), TEXTS, blocked / "vectors")) == len(TEXTS)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RetrievalError, match="there is no folder"):
        load_embedder(str(tmp_path / "nowhere"))


def test_a_hubs_model_is_told_by_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--sentence-transformers--mini"

    def move(commit: str) -> str:
        (repository / "refs").mkdir(parents=True, exist_ok=True)
        (repository / "refs" / "main").write_text(commit)
        (repository / "snapshots" / commit).mkdir(parents=True)
        (repository / "snapshots" / commit / "config.json").write_text("{}")
        return hub_digest("mini")

    unknown = hub_digest("mini")
    first = move("a" * 40)
    assert first != unknown
    assert first == hub_digest("mini") != hub_digest("sentence-transformers/mini")
    assert move("b" * 40) != first


def test_a_model_without_a_configuration_at_its_root_is_told_by_its_commit_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "elsewhere"
    monkeypatch.setenv("SENTENCE_TRANSFORMERS_HOME", str(home))
    repository = home / "models--sentence-transformers--static"
    (repository / "refs").mkdir(parents=True)
    unknown, seen = hub_digest("static"), set()
    for commit in ("c" * 40, "d" * 40):
        (repository / "refs" / "main").write_text(commit)
        (repository / "snapshots" / commit).mkdir(parents=True)
        (repository / "snapshots" / commit / "modules.json").write_text("[]")
        seen.add(hub_digest("static"))
    assert len(seen - {unknown}) == 2
