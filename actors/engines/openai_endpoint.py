"""A server that speaks OpenAI's protocol, as a backend: chats, or scripts to be continued.

Invariants: the key is read from the environment, and neither it nor a secret of the URL appears in
a message; what the server will never take is refused at once, and what it may take later ("429", a
fault of its own, a broken connection) is left to the replica, which sends it again; nothing waits
here.
"""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
import json
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from actors.engines import refusals
from actors.engines.rate_limit import RateLimit, retry_after
from specs.engine import (
    Answer,
    Candidate,
    EngineInfo,
    EngineStats,
    Failure,
    Later,
    Request,
    dead,
)
from specs.engine_section import EngineSection
from specs.errors import EngineError, nearest
from specs.masking import Place

if TYPE_CHECKING:
    import httpx

CONNECT_S = 10.0
_MOST_TOKENS = 2**31 - 1


class OpenAIBackend:
    """One OpenAI-compatible endpoint (implements `Backend`); it takes messages or text.

    Args:
        config: the engine's section of the run file.
        name: of the replica.
        transport: in place of the network, for tests.
    """

    def __init__(
        self,
        config: EngineSection,
        name: str,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._transport = transport
        self._config = config
        self._name = name
        self._url = config.url or ""
        self._key = ""
        self._place = Place.of(self._url)
        self._client: httpx.AsyncClient | None = None
        self._limit = RateLimit(config.requests_per_minute)
        self._limit_key = "max_tokens"
        self._counts = EngineStats()

    async def start(self) -> EngineInfo:
        """Ask the server for its models.

        Raises:
            EngineError: when it does not answer, does not take the key, or lacks the model.
        """
        import httpx

        self._key = self._read_key()
        self._place = Place.of(self._url, self._key)
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        await self.stop()
        self._client = httpx.AsyncClient(
            headers=headers,
            timeout=httpx.Timeout(self._config.turn_deadline_s, connect=CONNECT_S, pool=None),
            limits=httpx.Limits(max_connections=self._config.max_running + 4),
            trust_env=not is_loopback(self._url),
            transport=self._transport,
        )
        try:
            response = await self._client.get(self._at("models"))
        except httpx.InvalidURL as error:
            raise EngineError(f"{self._place} is no URL: {self._why(error)}", True) from error
        except httpx.UnsupportedProtocol as error:
            raise EngineError(f"{self._place} is no URL that begins with http", True) from error
        except httpx.HTTPError as error:
            why = self._why(error)
            raise EngineError(f"no server answers at {self._place}: {why}") from error
        return self._info(self._served(response))

    def admit(self) -> float:
        """Let one request begin and return 0, or return the seconds until the limit lets one."""
        return self._limit.admit()

    async def generate(self, request: Request) -> Answer:
        """Send a request; raises Later, or EngineError when the server takes no more at all."""
        if not request.messages and not request.text:
            message = "the endpoint is given messages or text, and the request has neither"
            return Answer(request.id, failure=Failure("refused", message))
        self._counts = replace(self._counts, running=self._counts.running + 1)
        try:
            answer = await self._ask(request)
            missing = request.sampling.n - len(answer.candidates)
            if answer.failure is None and 0 < missing < request.sampling.n:
                answer = await self._complete(request, answer, missing)
        finally:
            self._counts = replace(self._counts, running=self._counts.running - 1)
        done = self._counts.completion_tokens + answer.completion_tokens
        self._counts = replace(self._counts, completion_tokens=done)
        return answer

    async def abort(self, request_ids: Sequence[str]) -> None:
        """Nothing to do: whoever waited has been cancelled, and that closes the connection."""

    def stats(self) -> EngineStats:
        """Return the load now."""
        return self._counts

    async def reset_cache(self) -> None:
        """Nothing to do: the server's cache is its own."""

    async def stop(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _at(self, path: str) -> str:
        base, mark, query = self._url.partition("?")
        return f"{base.rstrip('/')}/{path}{mark}{query}"

    def _read_key(self) -> str:
        name = self._config.key_env
        if not name:
            return ""
        key = os.environ.get(name, "").strip()
        if not key:
            raise EngineError(
                f"the environment variable {name}, which holds the key of {self._place}, "
                "is not set",
                True,
            )
        if not key.isascii() or not key.isprintable():
            raise EngineError(f"what the environment variable {name} holds is no key", True)
        return key

    def _served(self, response: httpx.Response) -> dict[str, Any]:
        """Return what the server says about the model."""
        status = response.status_code
        if status in (401, 403):
            given = f"the key in {self._config.key_env}" if self._key else "requests without a key"
            hint = "" if self._key else "; key_env names the variable that holds one"
            raise EngineError(f"{self._place} does not take {given} ({status}){hint}", True)
        if status in (404, 405) or 300 <= status < 400:
            raise EngineError(
                f"{self._place} does not speak OpenAI's protocol ({status} for /models): the url "
                "goes up to and including /v1",
                True,
            )
        if status != 200:
            raise EngineError(f"{self._place} answers {status}: {self._message(response)}")
        try:
            models = {str(entry["id"]): dict(entry) for entry in response.json()["data"]}
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise EngineError(f"{self._place} lists no models: {error!r}", True) from error
        model = self._config.model
        if model not in models:
            known = ", ".join(sorted(models)[:8]) or "none"
            near = nearest(model, list(models))
            raise EngineError(f"{self._place} has no model {model!r}{near} (it has {known})", True)
        return models[model]

    def _info(self, entry: dict[str, Any]) -> EngineInfo:
        served = entry.get("max_model_len")
        window = self._config.window
        if isinstance(served, int) and served > 0:
            asked = "window" in self._config.model_fields_set
            window = min(window, served) if asked else served
        return EngineInfo(
            model=self._config.model,
            takes="messages",
            window=window,
            max_running=self._config.max_running,
            remote=not is_loopback(self._url),
        )

    async def _complete(self, request: Request, answer: Answer, missing: int) -> Answer:
        """Ask one by one for the candidates that a server left out which knows no `n`.

        As many as may begin now: an answer is worth more than the wait for its alternatives.
        """
        have = len(answer.candidates)
        wanted = range(request.sampling.seed + have, request.sampling.seed + have + missing)
        seeds = itertools.takewhile(lambda _: self._limit.admit() == 0, wanted)
        ones = [replace(request, sampling=replace(request.sampling, n=1, seed=s)) for s in seeds]
        more = await asyncio.gather(*(self._alternative(one) for one in ones))
        return replace(
            answer,
            candidates=answer.candidates + tuple(c for one in more for c in one.candidates),
            completion_tokens=answer.completion_tokens + sum(o.completion_tokens for o in more),
        )

    async def _alternative(self, request: Request) -> Answer:
        try:
            return await self._ask(request)
        except Later:
            return Answer(request.id)

    async def _ask(self, request: Request) -> Answer:
        """Send a request once; raises Later when another time may do."""
        import httpx

        sent = time.monotonic()
        try:
            response = await self._post(request)
        except httpx.HTTPError as error:  # an answer that cannot be decoded is one, too
            raise Later(f"{self._place}: {self._why(error)}") from error
        if response.status_code == 200:
            return self._answer(request, response, time.monotonic() - sent)
        why = f"{response.status_code}: {self._message(response)}"
        if response.status_code == 400 and self._switch_limit_key(why):
            raise Later(f"{self._place}: {why}", at_once=True)
        failure = self._final(response, why)
        if failure is not None:
            return Answer(request.id, failure=failure)
        asked = retry_after(response.headers.get("retry-after"))
        if asked is not None:
            self._limit.hold(asked)
        raise Later(f"{self._place}: {why}", at_once=asked is not None)

    async def _post(self, request: Request) -> httpx.Response:
        if self._client is None:
            raise dead(f"the engine {self._name} has not started")
        path = "chat/completions" if request.messages else "completions"
        return await self._client.post(
            self._at(path),
            json=_body(request, self._config.model, self._limit_key),
            timeout=request.deadline_s,
        )

    def _switch_limit_key(self, why: str) -> bool:
        """Newer models of OpenAI's take the limit under another name only."""
        if self._limit_key == "max_tokens" and "max_completion_tokens" in why:
            self._limit_key = "max_completion_tokens"
            return True
        return False

    def _final(self, response: httpx.Response, why: str) -> Failure | None:
        """Return the failure of what is never answered, None for what may be later."""
        meaning = refusals.meaning(response.status_code, response.text)
        if meaning == "again":
            return None
        if meaning == "fatal":
            raise EngineError(f"{self._place} takes no more requests ({why})", True)
        return Failure(meaning, f"{self._place}: {why}")

    def _message(self, response: httpx.Response) -> str:
        """Return the server's words, short, and without what is secret should it repeat it."""
        return self._place.clean(refusals.words(response.text))[:300]

    def _why(self, error: Exception) -> str:
        return self._place.clean(str(error)) or type(error).__name__

    def _answer(self, request: Request, response: httpx.Response, took_s: float) -> Answer:
        try:
            data = response.json()
            candidates = tuple(_candidate(choice) for choice in data["choices"])
            if not candidates:
                raise ValueError("no choices")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            message = f"{self._place} answered what is no completion: {error!r}"
            return Answer(request.id, failure=Failure("unavailable", message))
        usage = _mapping(data.get("usage"))
        return Answer(
            request.id,
            candidates=candidates[: request.sampling.n],
            prompt_tokens=_count(usage.get("prompt_tokens")),
            cached_tokens=_count(_mapping(usage.get("prompt_tokens_details")).get("cached_tokens")),
            completion_tokens=_count(usage.get("completion_tokens")),
            decode_s=took_s,
        )


def is_loopback(url: str) -> bool:
    """Return whether a URL's host is this machine."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _body(request: Request, model: str, limit_key: str) -> dict[str, Any]:
    asked = request.sampling
    body: dict[str, Any] = {
        "model": model,
        limit_key if request.messages else "max_tokens": asked.max_tokens,
        "temperature": asked.temperature,
        "top_p": asked.top_p,
        "n": asked.n,
        "seed": asked.seed,
    }
    if request.messages:
        body["messages"] = [{"role": m.role, "content": m.content} for m in request.messages]
    else:
        body["prompt"] = request.text
    if asked.stop:
        body["stop"] = list(asked.stop)
    if asked.schema:
        schema = {"name": "turn", "strict": True, "schema": json.loads(asked.schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    # Not in OpenAI's own protocol, so only where they are asked for.
    further = {"top_k": asked.top_k, "min_p": asked.min_p}
    body |= {key: value for key, value in further.items() if value}
    if asked.repetition_penalty != 1.0:
        body["repetition_penalty"] = asked.repetition_penalty
    return body


def _candidate(choice: dict[str, Any]) -> Candidate:
    said = choice["message"].get("content") if "message" in choice else choice["text"]
    reason = "length" if choice.get("finish_reason") == "length" else "stop"
    return Candidate(_text(said), reason, 0)


def _text(said: Any) -> str:
    """Return a choice's words: text, nothing, or a list of parts of which some are text."""
    if isinstance(said, list):
        said = "".join(_text(part.get("text")) for part in said)
    if not isinstance(said, str | None):
        raise TypeError(f"content is {type(said).__name__}")
    return said or ""


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(value: Any) -> int:
    """Return a number of tokens, 0 for what is none: figures never cost an answer."""
    known = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_TOKENS
    return value if known else 0
