"""What no file and no message may hold: keys and tokens, by their names, in URLs, and echoed."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit, urlunsplit

_REMOVED = "(removed)"
_MASK = "***"
_SECRET = re.compile(
    r"(^|[_.-])(token|secret|password|passwd|credentials?|api_?key|signature|sig"
    r"|(access|secret|private)_?key(_?id)?)$",
    re.IGNORECASE,
)
_PARAMETER = re.compile(r"^(key|auth|authorization|pass|pwd)$", re.IGNORECASE)
"""Names that are a secret's in a URL, but not elsewhere."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")
_WORD = 6
"""A secret shorter than this is masked only where it stands alone: `me` is part of many words."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server is, in words that may be shown.

    Attributes:
        shown: its URL without secrets; every message names it so.
        hidden: what the server may repeat and no message may hold, the longest first.
    """

    shown: str
    hidden: tuple[str, ...]

    @classmethod
    def of(cls, url: str, *keys: str) -> Place:
        """Return the place of a URL, which is asked with these keys."""
        hidden = {secret for secret in (*keys, *_secrets(url)) if secret}
        return cls(plain_url(url), tuple(sorted(hidden, key=len, reverse=True)))

    def __str__(self) -> str:
        return self.shown

    def clean(self, text: str) -> str:
        """Return words of the server, or of the library that asks it, without what is hidden."""
        for secret in self.hidden:
            edge = r"\b" if len(secret) < _WORD and secret.isalnum() else ""
            text = re.sub(f"{edge}{re.escape(secret)}{edge}", _MASK, text)
        return text


def without_secrets(value: Any, key: str = "") -> Any:
    """Return JSON data without keys and tokens: by their names, and in URLs."""
    if isinstance(value, Mapping):
        return {name: without_secrets(inner, str(name)) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_secrets(inner, key) for inner in value]
    if not isinstance(value, str) or not value:
        return value
    if _SECRET.search(key):
        return _REMOVED
    return _URL.sub(lambda match: plain_url(match[0]), value)


def plain_url(url: str) -> str:
    """Return a URL without its user, password and keys."""
    parts = _split(url)
    if parts is None:
        return _REMOVED
    if not parts.netloc:  # no URL at all; what stands before an @ may be a password all the same
        return url.rpartition("@")[2]
    query = parts.query
    if query:
        pairs = parse_qsl(query, keep_blank_values=True)
        safe = [(name, _REMOVED if _is_secret(name) else text) for name, text in pairs]
        query = query if safe == pairs else urlencode(safe)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, query, parts.fragment))


def _secrets(url: str) -> Iterator[str]:
    """Yield what a URL hides, in every form in which a server may repeat it."""
    parts = _split(url)
    authority = (parts.netloc if parts else "") or url.partition("://")[2] or url
    user = authority.rpartition("@")[0]
    if user:
        yield from (user, unquote(user), *user.split(":", 1), *unquote(user).split(":", 1))
        yield base64.b64encode(unquote(user).encode()).decode()
        if ":" not in user:  # what is sent then is a user with an empty password
            yield base64.b64encode(f"{unquote(user)}:".encode()).decode()
    for name, _, text in (pair.partition("=") for pair in url.partition("?")[2].split("&")):
        if _is_secret(name):
            yield from (text, unquote(text))


def _is_secret(parameter: str) -> bool:
    return bool(_SECRET.search(parameter) or _PARAMETER.search(parameter))


def _split(url: str) -> SplitResult | None:
    try:
        return urlsplit(url)
    except ValueError:
        return None
