"""The backend that a run file's engine asks for."""

from __future__ import annotations

from specs.engine import Backend
from specs.engine_section import EngineSection


def make_backend(config: EngineSection, name: str, adapter: str = "") -> Backend:
    """Return the backend of an engine, not yet started; heavy imports wait for its `start`.

    Args:
        config: the engine's section of the run file.
        name: of the replica, for messages.
        adapter: a folder with a LoRA adapter that every request may ask for; empty for none.
    """
    if config.kind == "reference":
        from actors.engines.reference import ReferenceBackend

        return ReferenceBackend(config, name)
    if config.kind == "openai":
        from actors.engines.openai_endpoint import OpenAIBackend

        return OpenAIBackend(config, name)
    from actors.engines.vllm_engine import VllmBackend

    return VllmBackend(config, name, adapter)
