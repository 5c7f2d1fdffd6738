"""Who plays a dialogue under which policy."""

from __future__ import annotations

from typing import Final

from actors.conversation import Conversation
from actors.routed import HybridConversation, RoutedConversation

CONVERSATIONS: Final[dict[str, type[Conversation]]] = {
    "walk": Conversation,
    "hybrid": HybridConversation,
    "routed": RoutedConversation,
}
"""The policies that play turn by turn; `single_prompt` writes a dialogue at once."""
