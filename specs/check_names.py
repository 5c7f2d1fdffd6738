"""The checks that `checks:` may name, with how many arguments each takes."""

from __future__ import annotations

from collections.abc import Mapping

from specs.domain import SlotType

ANY = 1_000

KNOWN_CHECKS: Mapping[str, tuple[int, int]] = {
    "asks": (0, 0),
    "asks_last": (0, 0),
    "avoids": (1, ANY),
    "begins_not": (1, ANY),
    "grounded": (1, ANY),
    "lists": (1, 1),
    "max_words": (1, 1),
    "mentions": (1, ANY),
    "min_words": (1, 1),
    "not_boilerplate": (0, 0),
    "picks": (2, 2),
    "rewords": (1, ANY),
    "says": (1, 1),
    "says_any": (1, ANY),
    "similar": (0, 1),
    "tells": (0, 0),
}
"""Name to the least and the greatest number of arguments."""

ARGUMENT_TYPES: Mapping[str, tuple[SlotType, ...]] = {
    "max_words": ("number",),
    "min_words": ("number",),
    "picks": ("list", "integer"),
    "similar": ("number",),
}
"""The types that a check's arguments must have, in their order, where not any will do."""
