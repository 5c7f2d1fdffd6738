"""Whatever vLLM raises while it starts is one clear error, never a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from actors.engines.vllm_start import EngineMeter, start_engine
from specs.errors import EngineError


class Compilation(BaseModel):
    """Stands in for one of vLLM's own tables."""

    model_config = ConfigDict(extra="forbid")
    level: int = 0


def _raising(error: Exception) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


def _nothing(**_: Any) -> None:
    return None


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Put modules of the test in the place of vLLM's."""
    fake = SimpleNamespace(args=_nothing, engine=_nothing)
    for name, members in (
        ("vllm.engine.arg_utils", {"AsyncEngineArgs": lambda **given: fake.args(**given)}),
        ("vllm.platforms", {"current_platform": SimpleNamespace(is_cpu=lambda: True)}),
        (
            "vllm.v1.engine.async_llm",
            {"AsyncLLM": SimpleNamespace(from_engine_args=lambda *_, **__: fake.engine())},
        ),
    ):
        module = ModuleType(name)
        module.__dict__.update(members)
        monkeypatch.setitem(sys.modules, name, module)
    return fake


def _refused(made: dict[str, Any]) -> EngineError:
    with pytest.raises(EngineError) as caught:
        start_engine("m", lambda cpu: made, EngineMeter())
    return caught.value


def test_a_vllm_table_that_it_does_not_take_is_named(vllm: SimpleNamespace) -> None:
    vllm.args = Compilation
    error = _refused({"level": "high", "speed": 3})
    assert error.permanent
    assert "`vllm` table" in str(error)
    assert "level: Input should be a valid integer" in str(error)
    assert "speed: Extra inputs are not permitted" in str(error)
    assert "\n" not in str(error)
    vllm.args = _raising(TypeError("unexpected keyword argument 'speed'"))
    assert "unexpected keyword argument 'speed'" in str(_refused({}))


@pytest.mark.parametrize(
    ("raised", "words"),
    [
        (AssertionError("world size 3 is odd"), "vLLM could not start m: world size 3 is odd"),
        (AssertionError(), "vLLM could not start m: AssertionError"),
        (TypeError("no len"), "vLLM could not start m: no len"),
    ],
)
def test_what_it_raises_while_it_starts_is_said(
    vllm: SimpleNamespace, raised: Exception, words: str
) -> None:
    vllm.engine = _raising(raised)
    assert str(_refused({})) == words


def test_a_setting_that_fails_validation_is_said_by_its_name(vllm: SimpleNamespace) -> None:
    vllm.engine = lambda: Compilation(level="high")  # type: ignore[arg-type]
    assert str(_refused({})).startswith("vLLM could not start m: level: Input should be")
