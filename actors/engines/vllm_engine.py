"""vLLM's AsyncLLM as a backend, on GPUs or on the CPU.

Settings for the CPU (STACK: threads bound to cores, `block_size=32`, no chunked prefill, because a
seeded request whose prompt is prefilled in chunks kills the engine there) are put in place before
vLLM is imported. The run file's `vllm` table overrides all of them.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from actors.engines.cores import Claim
from actors.engines.guard import Guard
from actors.engines.models import load_tokenizer, resolve_model
from actors.engines.vllm_environment import environment
from actors.engines.vllm_start import EngineMeter, start_engine
from specs.engine import Answer, Candidate, EngineInfo, EngineStats, Failure, Request, dead
from specs.engine_section import EngineSection
from specs.errors import EngineError
from specs.processor import cpu_dtype

GREEDY = 1e-5
_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks of adapters that vLLM makes room for."""


class VllmBackend:
    """One vLLM engine (implements `Backend`); it takes token ids.

    Args:
        config: the engine's section of the run file.
        name: of the replica.
        adapter: a folder with a LoRA adapter; its requests name it in `Request.adapter`. A trained
            adapter needs a folder of its own: under an old name vLLM may answer from stale blocks.
    """

    def __init__(self, config: EngineSection, name: str, adapter: str = "") -> None:
        self._config = config
        self._name = name
        self._adapter = adapter
        self._engine: Any = None
        self._claim = Claim()
        self._guard = Guard()
        self._meter = EngineMeter()
        self._info: EngineInfo | None = None
        self._adapters: dict[str, Any] = {}
        self._params: Callable[[Request], Any] | None = None

    async def start(self) -> EngineInfo:
        """Load the model; raises EngineError with one message when that cannot be."""
        model = await asyncio.to_thread(resolve_model, self._config.model, self._config.revision)
        tokenizer = await asyncio.to_thread(load_tokenizer, str(model), self._config.revision)
        self._claim_cores()
        arguments = _arguments(self._config, str(model), self._adapter)
        # In a thread: vLLM blocks until its processes are up, and the replica has to answer.
        self._meter = EngineMeter()
        starting = asyncio.ensure_future(
            asyncio.to_thread(self._load, arguments, self._claim.cores, isinstance(model, Path))
        )
        try:
            self._engine = await asyncio.shield(starting)
        except asyncio.CancelledError:
            starting.add_done_callback(self._shut)  # the thread goes on; nobody wants its engine
            raise
        vocabulary = int(self._engine.model_config.get_vocab_size())
        self._params = _sampling_params(special_ids(tokenizer, vocabulary))
        self._info = _info(self._engine, str(model), self._config)
        return self._info

    def admit(self) -> float:
        """Return 0: nothing but the places limits it."""
        return 0.0

    async def generate(self, request: Request) -> Answer:
        """Answer one request; raises EngineError when the engine has died."""
        if self._engine is None or self._info is None or self._params is None:
            raise dead(f"the engine {self._name} has not started")
        failure = self._unfit(request)
        if failure is not None:
            return Answer(request.id, failure=failure)
        from vllm.exceptions import VLLMClientError
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        try:
            return await self._generate(request, self._params(request))
        except EngineDeadError:
            raise dead(f"the process of vLLM's engine {self._name} has died") from None
        except (VLLMClientError, ValueError, TypeError) as error:
            return Answer(request.id, failure=Failure("refused", str(error)))
        except EngineGenerateError as error:
            if self._engine.errored:
                raise dead(f"vLLM's engine {self._name} has died: {error.__cause__}") from error
            failure = Failure("unavailable", f"vLLM could not answer: {error.__cause__!r}")
            return Answer(request.id, failure=failure)

    async def abort(self, request_ids: Sequence[str]) -> None:
        """Stop working on these requests."""
        if self._engine is not None:
            await self._engine.abort(list(request_ids))

    def stats(self) -> EngineStats:
        """Return the load now and the counters, as vLLM told them at its last step."""
        return self._meter.stats()

    async def reset_cache(self) -> None:
        """Empty the prefix cache."""
        if self._engine is not None:
            await self._engine.reset_prefix_cache()

    async def stop(self) -> None:
        """End the engine's processes; safe to call twice."""
        engine, self._engine = self._engine, None
        if engine is not None:
            listening = engine.output_handler
            if listening is not None:  # it would take the processes' end for their death
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)
            await asyncio.to_thread(engine.shutdown, 10.0)
            engine.shutdown = _nothing  # its destructor would call it while Python itself ends
        await asyncio.to_thread(self._guard.end)
        self._claim.release()

    def _load(
        self, arguments: Callable[[bool], dict[str, Any]], cores: Sequence[int], local: bool
    ) -> Any:
        try:
            with environment(cores, local, self._guard.begin()):
                engine = start_engine(self._config.model, arguments, self._meter)
            self._guard.loaded()
        except BaseException:
            self._guard.end()
            raise
        return engine

    def _shut(self, started: asyncio.Future[Any]) -> None:
        if not started.cancelled() and started.exception() is None:
            started.result().shutdown(10.0)
        self._guard.end()

    def _claim_cores(self) -> None:
        """Take cores for an engine on the CPU; of several ranks vLLM shares them out by itself."""
        if not self._config.gpus and self._config.tensor_parallel == 1:
            self._claim.take(self._config.cpu_cores)

    def _unfit(self, request: Request) -> Failure | None:
        if not request.tokens:
            return Failure("refused", "vLLM is given token ids, and the request has none")
        assert self._info is not None
        wanted = len(request.tokens) + request.sampling.max_tokens
        if wanted > self._info.window:
            message = (
                f"{len(request.tokens)} tokens of prompt and {request.sampling.max_tokens} of "
                f"answer do not fit the window of {self._info.window}"
            )
            return Failure("overflow", message)
        return self._unfit_adapter(request.adapter) if request.adapter else None

    def _unfit_adapter(self, adapter: str) -> Failure | None:
        """Look before vLLM does: an adapter that it cannot load kills its engine."""
        if adapter in self._adapters:
            return None
        lora = self._engine.vllm_config.lora_config
        if lora is None:
            return Failure("refused", f"the engine {self._name} was started without adapters")
        try:
            rank = _rank(adapter)
        except EngineError as error:
            return Failure("refused", str(error))
        if rank > lora.max_lora_rank:
            message = f"the adapter {adapter} has rank {rank}, and the engine takes"
            return Failure("refused", f"{message} {lora.max_lora_rank} at most")
        return None

    async def _generate(self, request: Request, params: Any) -> Answer:
        prompt = {"type": "token", "prompt_token_ids": list(request.tokens)}
        final: Any = None
        async for output in self._engine.generate(
            prompt, params, request.id, lora_request=self._lora(request.adapter)
        ):
            final = output
        return _answer(request, final)

    def _lora(self, adapter: str) -> Any:
        if not adapter:
            return None
        found = self._adapters.get(adapter)
        if found is None:
            from vllm.lora.request import LoRARequest

            found = LoRARequest(adapter, len(self._adapters) + 1, adapter)
            self._adapters[adapter] = found
        return found


def _nothing() -> None:
    """Take the place of what must not be called twice."""


def _arguments(config: EngineSection, model: str, adapter: str) -> Callable[[bool], dict[str, Any]]:
    """Return what makes AsyncEngineArgs' arguments, once it is known whether this is a CPU."""

    def arguments(cpu: bool) -> dict[str, Any]:
        made: dict[str, Any] = {
            "model": model,
            "revision": None if os.path.isabs(model) else config.revision,
            "max_model_len": config.window,
            "max_num_seqs": config.max_running,
            "dtype": config.dtype,
            "tensor_parallel_size": config.tensor_parallel,
            "enforce_eager": config.eager,
            "enable_prefix_caching": True,
            "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
            "generation_config": "vllm",  # decoding is the run file's alone
            "disable_log_stats": True,
            "enable_log_requests": False,
            "trust_remote_code": False,
        }
        if cpu:
            made |= {
                "dtype": fastest_dtype() if config.dtype == "auto" else config.dtype,
                "block_size": 32,
                "enable_chunked_prefill": False,
                "max_num_batched_tokens": max(config.window, 2048),
                "kv_cache_memory_bytes": int(config.kv_cache_gb * 2**30),
            }
        if adapter:
            rank = _rank(adapter)
            made |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": rank}
        return made | config.vllm

    return arguments


def fastest_dtype() -> str:
    """Return the type of number that this machine's CPU computes fastest in."""
    import torch

    return cpu_dtype(torch.backends.cpu.get_cpu_capability())


def _rank(adapter: str) -> int:
    path = Path(adapter) / "adapter_config.json"
    if not any(
        (path.parent / f"adapter_model.{kind}").is_file() for kind in ("safetensors", "bin")
    ):
        raise EngineError(f"{adapter} holds no LoRA adapter: it has no adapter_model", True)
    try:
        rank = int(json.loads(path.read_text(encoding="utf-8"))["r"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EngineError(f"{adapter} holds no LoRA adapter: {error}", True) from error
    if rank > _LORA_RANKS[-1]:
        raise EngineError(f"the adapter {adapter} has rank {rank}; vLLM takes 512 at most", True)
    return fitting_rank(rank)


def fitting_rank(rank: int) -> int:
    """Return the least of vLLM's ranks that an adapter's (of 512 at most) fits into."""
    return next(known for known in _LORA_RANKS if known >= rank)


def _info(engine: Any, model: str, config: EngineSection) -> EngineInfo:
    import torch
    import vllm

    return EngineInfo(
        model=config.model,
        takes="tokens",
        window=int(engine.model_config.max_model_len),
        max_running=int(engine.vllm_config.scheduler_config.max_num_seqs),
        tokenizer=model,
        adapters=engine.vllm_config.lora_config is not None,
        versions={"vllm": vllm.__version__, "torch": torch.__version__},
    )


def special_ids(tokenizer: Any, vocabulary: int) -> list[int]:
    """Return the ids of a tokenizer's special tokens, none of which is a part of what is said.

    vLLM itself stops at one of them. Many models end with another (`<|endoftext|>` behind a text
    that is no chat, `<end_of_turn>`), write on about something else, and no trace of it is left in
    the text.

    Args:
        tokenizer: from transformers; those of mistral_common tell less than others.
        vocabulary: how many tokens the model itself knows. A tokenizer may have special tokens
            beyond them (Gemma 3's for images), and vLLM refuses a request that names one.
    """
    added = getattr(tokenizer, "added_tokens_decoder", None)
    named = added.items() if isinstance(added, Mapping) else ()
    special = {number for number, token in named if token.special}
    return sorted(i for i in special.union(tokenizer.all_special_ids) if 0 <= i < vocabulary)


def _sampling_params(ends: Sequence[int]) -> Callable[[Request], Any]:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    def params(request: Request) -> Any:
        asked = request.sampling
        greedy = asked.temperature < GREEDY  # all its candidates are one
        schema = StructuredOutputsParams(json=asked.schema) if asked.schema else None
        return SamplingParams(
            n=1 if greedy else asked.n,
            max_tokens=asked.max_tokens,
            seed=asked.seed,
            temperature=asked.temperature,
            top_p=asked.top_p,
            top_k=asked.top_k,
            min_p=asked.min_p,
            repetition_penalty=asked.repetition_penalty,
            stop=list(asked.stop) or None,
            stop_token_ids=list(ends),
            structured_outputs=schema,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    return params


def _answer(request: Request, output: Any) -> Answer:
    candidates = tuple(
        Candidate(one.text, one.finish_reason or "", len(one.token_ids), tuple(one.token_ids))
        for one in sorted(output.outputs, key=lambda one: int(one.index))
    )
    tokens = sum(candidate.tokens for candidate in candidates)
    if len(candidates) == 1:  # greedy
        candidates *= request.sampling.n
    times = output.metrics
    return Answer(
        request.id,
        candidates=candidates,
        prompt_tokens=len(request.tokens),
        cached_tokens=output.num_cached_tokens or 0,
        completion_tokens=tokens,
        queue_s=_span(times, "queued_ts", "scheduled_ts"),
        prefill_s=_span(times, "scheduled_ts", "first_token_ts"),
        decode_s=_span(times, "first_token_ts", "last_token_ts"),
    )


def _span(times: Any, begin: str, end: str) -> float:
    """Return the seconds between two of vLLM's time stamps; 0 where one is missing."""
    first, last = getattr(times, begin, 0.0), getattr(times, end, 0.0)
    return max(0.0, last - first) if first and last else 0.0
