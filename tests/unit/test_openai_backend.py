"""What the endpoint's backend makes of a server's answers, good and bad."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from actors.engines.openai_endpoint import OpenAIBackend, is_loopback
from actors.engines.replica import ReplicaCore
from specs.engine import Answer, Message, Request, Sampling
from specs.engine_section import EngineSection
from specs.errors import EngineError

KEY = "sk-very-secret"
Handler = Callable[[httpx.Request], httpx.Response]


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)
    monkeypatch.setattr("actors.engines.replica.backoff", lambda *_: 0.0)


def backend(handler: Handler, **keys: Any) -> OpenAIBackend:
    settings = {"model": "m", "url": "https://example.org/v1", "key_env": "TEST_KEY"} | keys
    config = EngineSection(kind="openai", **settings)
    return OpenAIBackend(config, "r0", httpx.MockTransport(handler))


def models(**entry: Any) -> httpx.Response:
    return httpx.Response(200, json={"data": [{"id": "m"} | entry, {"id": "other"}]})


def said(*texts: str) -> httpx.Response:
    choices = [{"message": {"content": text}, "finish_reason": "stop"} for text in texts]
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": None}
    return httpx.Response(200, json={"choices": choices, "usage": usage})


async def started(*answers: httpx.Response) -> tuple[OpenAIBackend, list[httpx.Request]]:
    waiting, seen = list(answers), []

    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/models":
            return models()
        seen.append(request)
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]

    made = backend(handler)
    await made.start()
    return made, seen


async def asked(made: OpenAIBackend, request: Request | None = None) -> Answer:
    """Ask as a replica does, which sends what comes later again."""
    core = ReplicaCore(made, "r0")
    await core.start()
    await core.submit("c", [request or chat()])
    return (await core.poll("c", 0, 10.0)).answers[0][1]


def chat(n: int = 1, schema: str | None = None) -> Request:
    sampling = Sampling(16, 5, n, stop=("\n",), schema=schema)
    return Request("q", sampling, messages=(Message("user", "hello"),))


async def test_a_chat_goes_out_whole_and_comes_back() -> None:
    made, seen = await started(said("hi", "ho"))
    schema = {"type": "object"}
    answer = await made.generate(chat(2, json.dumps(schema)))
    assert [candidate.text for candidate in answer.candidates] == ["hi", "ho"]
    assert (answer.prompt_tokens, answer.completion_tokens) == (7, 3)
    body = json.loads(seen[0].content)
    assert seen[0].headers["authorization"] == f"Bearer {KEY}"
    assert body["messages"] == [{"role": "user", "content": "hello"}]
    assert (body["n"], body["seed"], body["stop"]) == (2, 5, ["\n"])
    assert body["response_format"]["json_schema"]["schema"] == schema
    assert "top_k" not in body


async def test_a_script_goes_to_completions() -> None:
    choice = {"text": "soup", "finish_reason": "length"}
    made, seen = await started(httpx.Response(200, json={"choices": [choice]}))
    answer = await made.generate(Request("q", Sampling(16, 5, top_k=3), text="Cook:"))
    assert answer.candidates[0].finish_reason == "length"
    assert seen[0].url.path == "/v1/completions"
    body = json.loads(seen[0].content)
    assert (body["prompt"], body["top_k"]) == ("Cook:", 3)


async def test_a_server_that_knows_no_n_is_asked_again() -> None:
    made, seen = await started(said("hi"))
    answer = await made.generate(chat(3))
    assert len(answer.candidates) == 3
    assert [json.loads(one.content)["seed"] for one in seen] == [5, 6, 7]


async def test_alternatives_are_asked_for_as_far_as_the_limit_lets_them() -> None:
    seen = []

    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/models":
            return models()
        seen.append(request)
        return said("hi")

    made = backend(handler, requests_per_minute=2)
    assert len((await asked(made, chat(4))).candidates) == 2
    assert len(seen) == 2
    assert made.admit() > 50


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_what_may_pass_is_tried_again(status: int) -> None:
    busy = httpx.Response(status, headers={"retry-after": "0"})
    made, seen = await started(busy, busy, said("hi"))
    assert (await asked(made)).failure is None
    assert len(seen) == 3
    made, seen = await started(busy)
    failure = (await asked(made)).failure
    assert failure is not None
    assert failure.kind == "unavailable"
    assert len(seen) == 5


@pytest.mark.parametrize(
    ("message", "kind"),
    [("This model's maximum context length is 8 tokens", "overflow"), ("no such thing", "refused")],
)
async def test_what_never_works_is_not_and_names_no_key(message: str, kind: str) -> None:
    made, seen = await started(httpx.Response(400, json={"error": {"message": f"{message} {KEY}"}}))
    failure = (await made.generate(chat())).failure
    assert failure is not None
    assert (failure.kind, failure.permanent) == (kind, True)
    assert message in failure.message
    assert KEY not in failure.message
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([{"type": "text", "text": "so"}, {"type": "image"}, {"text": "up"}], "soup"),
        (None, ""),
        ([], ""),
        (7, None),
        ([7], None),
        ([{"text": 7}], None),
    ],
)
async def test_content_is_text_or_parts_of_text(content: object, text: str | None) -> None:
    choice = {"message": {"content": content}}
    made, _ = await started(httpx.Response(200, json={"choices": [choice]}))
    answer = await made.generate(chat())
    assert [candidate.text for candidate in answer.candidates] == ([] if text is None else [text])
    assert (answer.failure is None) == (text is not None)


@pytest.mark.parametrize(
    "usage", ["x", [1], {"prompt_tokens": "abc"}, {"prompt_tokens": 10**30}, {"prompt_tokens": -1}]
)
async def test_nonsense_for_figures_costs_no_answer(usage: object) -> None:
    choice = {"message": {"content": "hi"}}
    made, _ = await started(httpx.Response(200, json={"choices": [choice], "usage": usage}))
    answer = await made.generate(chat())
    assert (answer.failure, answer.prompt_tokens) == (None, 0)


async def test_an_answer_that_cannot_be_unpacked_is_asked_for_again() -> None:
    answers = iter([True, False])

    async def broken() -> AsyncIterator[bytes]:
        yield b"no gzip"

    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/models":
            return models()
        if not next(answers):
            return said("hi")
        return httpx.Response(200, headers={"content-encoding": "gzip"}, content=broken())

    assert (await asked(backend(handler))).failure is None


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (402, {"message": "out of credit"}),
        (403, {"message": "no"}),
        (404, {"message": "gone"}),
        (405, "no"),
        (302, "elsewhere"),
        (429, {"message": "pay", "code": "insufficient_quota"}),
        (400, {"message": "x", "type": "invalid", "code": "model_not_found"}),
    ],
)
async def test_what_ends_the_service_ends_the_run_and_refuses_no_dialogue(
    status: int, error: object
) -> None:
    made, seen = await started(httpx.Response(status, json={"error": error}))
    with pytest.raises(EngineError, match=str(status)) as caught:
        await made.generate(chat())
    assert caught.value.permanent
    assert len(seen) == 1


@pytest.mark.parametrize(
    "error",
    [
        {"message": "flagged", "code": "content_policy_violation"},
        {"message": "flagged", "code": 403, "metadata": {"reasons": ["violence"]}},
    ],
)
async def test_a_moderated_request_is_refused_alone(error: object) -> None:
    made, _ = await started(httpx.Response(403, json={"error": error}))
    failure = (await made.generate(chat())).failure
    assert failure is not None
    assert failure.kind == "refused"


async def test_no_secret_of_the_url_reaches_a_message_and_the_path_goes_before_the_query() -> None:
    seen: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.path)
        if request.url.path == "/v1/models":
            return models()
        echoed = f"{request.url} {request.headers['authorization']} hunter2"
        return httpx.Response(400, json={"error": {"message": echoed}})

    url = "https://me:hunter2@example.org/v1?api_key=QUERY-KEY"
    failure = (await asked(backend(handler, url=url, key_env=None))).failure
    assert failure is not None
    encoded = base64.b64encode(b"me:hunter2").decode()
    for secret in ("hunter2", "QUERY-KEY", encoded):
        assert secret not in failure.message
    assert seen == ["/v1/models", "/v1/chat/completions"]


async def test_newer_models_take_the_limit_under_its_newer_name() -> None:
    why = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    made, seen = await started(httpx.Response(400, json={"error": {"message": why}}), said("hi"))
    assert (await asked(made)).failure is None
    assert json.loads(seen[1].content)["max_completion_tokens"] == 16


async def test_nonsense_is_a_failure_and_a_lost_key_the_end() -> None:
    for nonsense in (httpx.Response(200, text="<html>"), httpx.Response(200, json={"choices": []})):
        made, _ = await started(nonsense)
        failure = (await made.generate(chat())).failure
        assert failure is not None
        assert failure.kind == "unavailable"
    made, _ = await started(httpx.Response(401, text=KEY))
    with pytest.raises(EngineError) as caught:
        await made.generate(chat())
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("response", "words", "permanent"),
    [
        (httpx.Response(401, text=KEY), "TEST_KEY", True),
        (httpx.Response(404), "/v1", True),
        (httpx.Response(200, json={"data": [{"id": "m2"}]}), "did you mean 'm2'", True),
        (httpx.Response(200, text="<html>"), "lists no models", True),
        (httpx.Response(502, text=f"bad {KEY}"), "502", False),
    ],
)
async def test_at_the_start_it_says_what_is_wrong(
    response: httpx.Response, words: str, permanent: bool
) -> None:
    with pytest.raises(EngineError) as caught:
        await backend(lambda _: response).start()
    assert words in str(caught.value)
    assert KEY not in str(caught.value)
    assert caught.value.permanent == permanent


async def test_a_missing_key_and_a_refused_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("Connection refused")

    with pytest.raises(EngineError, match=r"no server answers at https://example.org/v1"):
        await backend(refuse).start()
    monkeypatch.delenv("TEST_KEY")
    with pytest.raises(EngineError, match="TEST_KEY"):
        await backend(lambda _: models()).start()


async def test_the_window_is_the_servers_unless_less_is_asked() -> None:
    for keys, window in (({}, 9000), ({"window": 512}, 512), ({"window": 10000}, 9000)):
        info = await backend(lambda _: models(max_model_len=9000), **keys).start()
        assert info.window == window
        assert info.remote


def test_what_is_remote() -> None:
    for url in ("http://localhost:1/v1", "http://127.0.0.1/v1", "http://[::1]:8000/v1"):
        assert is_loopback(url)
    for url in ("https://example.org/v1", "http://10.0.0.1/v1", "http://localhost.evil/v1", "x"):
        assert not is_loopback(url)
