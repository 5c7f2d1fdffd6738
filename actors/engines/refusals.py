"""What a server's refusal means: for the one request, for the whole run, or only for now.

Invariant: only what concerns the request itself is `refused` or an `overflow`, which become a
dialogue's record; whatever ends the service (no credit, a vanished model, a lost key) is `fatal`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Literal

Meaning = Literal["again", "refused", "overflow", "fatal"]

_REQUEST = (400, 413, 422)
_LATER = (408, 409, 425, 429)
_OVERFLOW = re.compile(
    r"context.?length|context.?window|maximum context|max_model_len|too many tokens"
    r"|prompt is too long|exceeds? the (?:available )?context",
    re.IGNORECASE,
)
_ENDED = frozenset(
    {
        "insufficient_quota", "billing_hard_limit_reached", "billing_not_active",
        "account_deactivated", "invalid_api_key", "model_not_found",
    }
)  # fmt: skip
"""Codes of what no later request escapes, whatever status they come with (OpenAI: 429, 400)."""

_MODERATED = frozenset({"content_filter", "content_policy_violation", "moderation_blocked"})
_FLAGGED = frozenset({"reasons", "flagged_input"})
"""What OpenRouter's `metadata` holds when it moderates, which it does with a 403."""


def meaning(status: int, body: str) -> Meaning:
    """Return what an answer that is no success means, from its status and its body."""
    error = _error(body)
    codes = _codes(error)
    if _moderated(error, codes):
        return "refused"
    if codes & _ENDED:
        return "fatal"
    if status in _LATER or status >= 500:
        return "again"
    if status not in _REQUEST:
        return "fatal"
    return "overflow" if _OVERFLOW.search(" ".join([words(body), *codes])) else "refused"


def words(body: str) -> str:
    """Return the server's own words out of its body, in one line."""
    error = _error(body)
    said = error.get("message", error) if isinstance(error, Mapping) else error
    return " ".join(str(said).split()) or "(no message)"


def _error(body: str) -> Any:
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return body
    return data.get("error", data) if isinstance(data, Mapping) else data


def _codes(error: Any) -> set[str]:
    if not isinstance(error, Mapping):
        return set()
    return {str(error[key]) for key in ("code", "type") if error.get(key) is not None}


def _moderated(error: Any, codes: set[str]) -> bool:
    metadata = error.get("metadata") if isinstance(error, Mapping) else None
    flagged = isinstance(metadata, Mapping) and not _FLAGGED.isdisjoint(metadata)
    return flagged or bool(codes & _MODERATED)
