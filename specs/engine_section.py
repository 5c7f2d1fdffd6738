"""The tables of a run file that say what an engine is: its model, its replicas, its profile."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from specs.gpus import Gpus
from specs.section import Replicas, Seconds, Section

_RAYS = frozenset({"CPU", "GPU", "memory", "object_store_memory"})
_SCHEMES = ("http://", "https://")


class Profile(Section):
    """How one model is spoken to: it belongs to the model, never to a domain.

    Attributes:
        form: a chat through the model's template, or a script that the model continues.
        history: how many of the last turns the model sees.
        examples: how many few-shot pairs.
        candidates: asked for at first, and at once when none of those passed.
        repair: ask once more, naming the failed checks.
        grounding: how many words of documents and results go in beside the instruction.
    """

    form: Literal["chat", "script"] = "chat"
    history: Annotated[int, Field(ge=0)] = 12
    examples: Annotated[int, Field(ge=0)] = 3
    candidates: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=0)]] = (1, 3)
    repair: bool = True
    max_tokens: Annotated[int, Field(ge=1)] = 120
    temperature: Annotated[float, Field(ge=0)] = 0.7
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    top_k: Annotated[int, Field(ge=0)] = 0
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    repetition_penalty: Annotated[float, Field(gt=0)] = 1.0
    persona: bool = True


class ReferenceFaults(Section):
    """Faults and latencies of the reference engine, for rehearsing a cluster.

    Attributes:
        latency_s: bounds of a uniform draw, seconds.
        failure: share of requests answered `unavailable`.
        hang: share of requests that are never answered.
        crash_after: requests after which the replica dies; 0 for never.
        garbage: share of candidates that say something no check lets through.
        token_s: seconds that each word of the answer takes beside that.
        stragglers: share of requests that take `straggler_factor` times as long.
    """

    latency_s: tuple[float, float] = (0.0, 0.0)
    token_s: Annotated[float, Field(ge=0)] = 0.0
    stragglers: Annotated[float, Field(ge=0, le=1)] = 0.0
    straggler_factor: Annotated[float, Field(ge=1)] = 50.0
    failure: Annotated[float, Field(ge=0, le=1)] = 0.0
    hang: Annotated[float, Field(ge=0, le=1)] = 0.0
    crash_after: Annotated[int, Field(ge=0)] = 0
    garbage: Annotated[float, Field(ge=0, le=1)] = 0.0

    @field_validator("latency_s")
    @classmethod
    def _bounds_in_order(cls, bounds: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= bounds[0] <= bounds[1]:
            raise ValueError("wants the least and the most seconds, neither below 0")
        return bounds


class EngineSection(Section):
    """One engine: a model, its replicas and its profile.

    Attributes:
        model: `smollm2-135m`, a local folder, a GGUF file or a hub id (vllm); the served model's
            name (openai); unused (reference).
        url: of an OpenAI-compatible endpoint, up to and including `/v1`.
        key_env: the environment variable that holds its key; the key itself is never written.
        window: tokens of prompt and answer together.
        max_running: candidates decoded at once.
        replicas: a number; `[least, most]`: the run begins with the least and takes more where the
            cluster has room; `"auto"`: the plan shares the GPUs among the engines by their work.
        gpus: of one replica; without, it runs on the CPU.
        accelerator: the GPU that a replica wants, as Ray names it (`H100`, `A100`, `L40S`).
        resources: Ray's custom resources that one replica takes, such as `{user_engine = 1}`: they
            send an engine to the nodes that have them (`ray_cluster.yaml`).
        cpu_cores: cores for vLLM's threads on the CPU; 0 for all.
        kv_cache_gb: GiB for the KV cache on the CPU.
        dtype: `auto` is the model's own on a GPU, and on a CPU what that is fastest in
            (`specs.processor`).
        eager: do without torch.compile: starts sooner, speaks slower.
        vllm: further arguments of vLLM's AsyncEngineArgs, as they are.
        tokens_per_s: what one replica writes in a second at its best, where that is known; the plan
            goes by it, else by what an earlier part of this run has measured.
        gpu_hour_price: of one of its GPUs; None for `cluster.gpu_hour_price`.
        hang_s: an engine that does nothing for so long, with work at hand, is ended and started
            again; not one of kind openai, whose requests have their deadlines.
    """

    kind: Literal["vllm", "openai", "reference"] = "vllm"
    model: str = "smollm2-135m"
    replicas: Replicas = 1
    window: Annotated[int, Field(ge=128)] = 2048
    max_running: Annotated[int, Field(ge=1)] = 48
    gpus: Gpus | None = None
    accelerator: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] | None = None
    resources: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    cpu_cores: Annotated[int, Field(ge=0)] = 0
    kv_cache_gb: Annotated[float, Field(gt=0)] = 1.0
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    eager: bool = True
    revision: str | None = None
    tensor_parallel: Annotated[int, Field(ge=1)] = 1
    vllm: dict[str, Any] = Field(default_factory=dict)
    url: str | None = None
    key_env: str | None = None
    requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    tokens_per_s: Annotated[float, Field(gt=0)] | None = None
    gpu_hour_price: Annotated[float, Field(ge=0)] | None = None
    start_deadline_s: Seconds = 600.0
    turn_deadline_s: Seconds = 120.0
    hang_s: Seconds = 180.0
    faults: ReferenceFaults = ReferenceFaults()
    profile: Profile = Profile()

    @model_validator(mode="after")
    def _needs_url(self) -> EngineSection:
        if self.kind == "openai" and not (self.url or "").lower().startswith(_SCHEMES):
            raise ValueError("an openai engine needs `url`, such as http://127.0.0.1:8000/v1")
        return self

    @field_validator("resources")
    @classmethod
    def _custom_resources(cls, resources: dict[str, float]) -> dict[str, float]:
        if own := sorted(_RAYS.intersection(resources)):
            raise ValueError(
                f"names {', '.join(own)}, which Ray has by itself: GPUs are asked for by `gpus`, "
                "and vLLM's threads on the CPU by `cpu_cores`"
            )
        return resources

    @field_validator("replicas")
    @classmethod
    def _least_before_most(cls, replicas: Replicas) -> Replicas:
        if isinstance(replicas, tuple) and replicas[0] > replicas[1]:
            raise ValueError("wants the least replicas before the most")
        return replicas

    @model_validator(mode="after")
    def _accelerator_is_a_gpu(self) -> EngineSection:
        if self.accelerator and not self.gpus:
            raise ValueError(f"asks for a {self.accelerator} and no GPU: set gpus")
        if self.gpus and self.tensor_parallel > 1 and self.gpus != self.tensor_parallel:
            raise ValueError(
                f"spreads the model over {self.tensor_parallel} GPUs (tensor_parallel) and asks "
                f"for {self.gpus:g}: set gpus = {self.tensor_parallel}"
            )
        return self

    @property
    def least(self) -> int:
        """The replicas that a run needs."""
        if isinstance(self.replicas, tuple):
            return self.replicas[0]
        return self.replicas if isinstance(self.replicas, int) else 1

    @property
    def most(self) -> int:
        """The replicas that a run takes where there is room (of `auto` 1: the plan finds it)."""
        return self.replicas[1] if isinstance(self.replicas, tuple) else self.least
