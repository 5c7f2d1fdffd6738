"""A role's seat at a conversation: its engine, its profile, and how a prompt becomes a request."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Protocol

from actors.prompts import Prompt
from specs.chat_template import ChatEncoder
from specs.engine import Answer, EngineInfo, Request, Sampling
from specs.engine_section import Profile


class Client(Protocol):
    """An engine as a conversation asks it (see `actors.engines.client`)."""

    async def ask(self, request: Request, dialogue: str) -> Answer:
        """Return the answer to a request; failures are answers."""

    def release(self, dialogue: str) -> None:
        """Forget which replicas the dialogue's roles stick to."""


class Tokenizer(Protocol):
    """What is used of a `transformers` tokenizer."""

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any:
        """Return the token ids of a chat."""

    def encode(self, text: str, **options: Any) -> list[int]:
        """Return the token ids of a text."""


@dataclass(frozen=True, slots=True)
class Seat:
    """One role's engine and how it is spoken to.

    Attributes:
        role: whose seat it is; a role's turns of one dialogue stay with one replica.
        tokenizer: None for engines that do not take tokens.
        adapter: that speaks, an agent's that was trained; empty for the model itself.
        encoder: of what that adapter is shown; None where there is none, or no tokens are taken.
        executor: runs the tokenizer off the event loop.
    """

    client: Client
    info: EngineInfo
    profile: Profile
    tokenizer: Tokenizer | None = None
    executor: Executor | None = None
    deadline_s: float = 120.0
    role: str = ""
    adapter: str = ""
    encoder: ChatEncoder | None = None

    @property
    def form(self) -> str:
        """The form of its prompts."""
        return "learned" if self.adapter else self.profile.form

    def sampling(
        self, prompt: Prompt, seed: int, n: int, max_tokens: int | None = None
    ) -> Sampling:
        """Return the decoding of one request."""
        profile = self.profile
        return Sampling(
            max_tokens=max_tokens or profile.max_tokens,
            seed=seed,
            n=n,
            temperature=profile.temperature,
            top_p=profile.top_p,
            top_k=profile.top_k,
            min_p=profile.min_p,
            repetition_penalty=profile.repetition_penalty,
            stop=prompt.stop,
            schema=prompt.schema,
        )

    def encode(self, prompt: Prompt) -> list[int]:
        """Return the token ids of a prompt (engines that take tokens)."""
        if (told := prompt.learned) is not None:
            assert self.encoder is not None
            return self.encoder.prompt(told.messages, told.prefix)
        assert self.tokenizer is not None
        if prompt.text:
            return list(self.tokenizer.encode(prompt.text, add_special_tokens=True))
        chat = [{"role": m.role, "content": m.content} for m in prompt.messages]
        ids = self.tokenizer.apply_chat_template(
            chat, add_generation_prompt=True, tokenize=True, return_dict=False
        )
        return list(ids)


def request(
    seat: Seat,
    id_: str,
    prompt: Prompt,
    sampling: Sampling,
    tokens: Sequence[int],
    references: Sequence[str],
    priority: int,
) -> Request:
    """Return a request with what the seat's engine takes, and nothing else."""
    takes = seat.info.takes
    return Request(
        id=id_,
        sampling=sampling,
        role=seat.role,
        tokens=tuple(tokens) if takes == "tokens" else (),
        messages=prompt.messages if takes == "messages" else (),
        text=prompt.text if takes == "messages" else "",
        references=tuple(references) if takes == "references" else (),
        deadline_s=seat.deadline_s,
        priority=priority,
        # Fully trained weights are the engine's model, and no adapter to ask for.
        adapter=seat.adapter if seat.info.adapters and seat.info.model != seat.adapter else "",
    )
