"""The trained adapter on disk: peft's files, the tokenizer's, and a manifest that says what it is.

Invariants: the folder appears whole, and the one before it stays until then (on an object store,
which cannot rename, a folder without its manifest is none); an adapter is never put on another
base model than its own.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyarrow import fs as pafs

from specs.errors import DuologueError, Finding, InputError, Where
from specs.parts import Folder, storage_error, synchronise
from trainer.weights import COMMIT, hub_digest

MANIFEST = "manifest.json"
FORMAT = "duologue-adapter"

_TRAIN = "Train one: duologue train RUN.toml"


def publish(staged: Folder, target: Folder, manifest: Mapping[str, Any]) -> None:
    """Make a complete adapter of staged files: they move to the target, with their manifest.

    Raises:
        DuologueError: the disk is full, and the like; what was there stays.
    """
    text = json.dumps({"format": FORMAT, **manifest}, ensure_ascii=False, indent=1) + "\n"
    staged.write_bytes(MANIFEST, text.encode())
    try:
        if staged.local:
            _replace(Path(staged.path), Path(target.path))
        else:
            _copy(staged, target)
    except OSError as error:
        raise storage_error(error, target.path) from error


def _replace(new: Path, place: Path) -> None:
    for file in new.iterdir():
        synchronise(str(file))
    old = place.with_name(f"_{place.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():
        place.rename(old)
    new.rename(place)
    synchronise(str(place.parent))
    shutil.rmtree(old, ignore_errors=True)


def _copy(staged: Folder, target: Folder) -> None:
    target.create()
    target.delete(MANIFEST)
    names = staged.names()
    for name in set(target.names()) - set(names):
        target.delete(name)
    for name in sorted(names, key=lambda one: one == MANIFEST):
        pafs.copy_files(
            staged.file(name),
            target.file(name),
            source_filesystem=staged.fs,
            destination_filesystem=target.fs,
        )
    staged.fs.delete_dir(staged.path)


def upload(source: Path, target: Folder) -> None:
    """Copy a local folder's files, replacing what is there.

    Raises:
        DuologueError: the disk is full, and the like.
    """
    try:
        if target.fs.get_file_info(target.path).type != pafs.FileType.NotFound:
            target.fs.delete_dir(target.path)
        target.create()
        pafs.copy_files(str(source), target.path, destination_filesystem=target.fs)
    except OSError as error:
        raise storage_error(error, target.path) from error


def trained_as(manifest: Mapping[str, Any]) -> str:
    """Return what tells an adapter from every other: what it was trained on, how, and when."""
    return f"{manifest.get('training', '')} {manifest.get('made', '')}".strip()


def published(folder: Folder) -> dict[str, Any] | None:
    """Return the manifest of a run's adapter; None where there is no whole one."""
    try:
        found = json.loads(folder.read_bytes(MANIFEST))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("format") == FORMAT else None


def load_manifest(folder: Path) -> dict[str, Any]:
    """Return an adapter's manifest.

    Raises:
        InputError: there is no such folder, or it holds no adapter of Duologue.
    """
    file = folder / MANIFEST
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise _refused(folder, f"holds no trained adapter: it has no {MANIFEST}") from None
    except (OSError, ValueError) as error:
        raise _refused(folder, f"its {MANIFEST} cannot be read: {error}") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise _refused(folder, f"its {MANIFEST} is not Duologue's")
    return found


def check_adapter(folder: Path, base_model: str, digest: str = "") -> list[Finding]:
    """Return what keeps an adapter from being put on a base model; nothing when it fits.

    Args:
        base_model: its name, as a run file gives it.
        digest: of the base model (`weights.base_digest`); where it is given it decides, so that a
            model may go by two names, and not two models by one.
    """
    try:
        manifest = load_manifest(folder)
    except InputError as error:
        return list(error.findings)
    findings = []
    method, base = manifest.get("method"), str(manifest.get("base_model", ""))
    if method != "full" and not _same_base(manifest, base_model, digest):
        other = f"{base_model} ({digest[:8]})" if base == base_model else base_model
        message = f"this adapter was trained on {base}, and would be put on {other}"
        hint = f"Name {base} (train.model, or the engine's model), or train one for {base_model}."
        if base == base_model and _pinned(manifest):
            message = (
                f"this adapter was trained on another revision of {base} than it would be put on"
            )
            revision = manifest["base_revision"]
            hint = f'Set revision = "{revision}" beside the model\'s name, or train it again.'
        findings.append(Finding(Where(str(folder)), message, hint))
    wanted = ("config.json",) if method == "full" else ("adapter_config.json",)
    missing = [name for name in wanted if not (folder / name).is_file()]
    if not any(folder.glob("*.safetensors")):
        missing.append("*.safetensors")
    if missing:
        message = f"is not whole: {', '.join(missing)} is missing"
        findings.append(Finding(Where(str(folder)), message, _TRAIN))
    return findings


def _pinned(manifest: Mapping[str, Any]) -> bool:
    """Whether a manifest names the commit of its base model, which is then one of a hub's."""
    return COMMIT.fullmatch(str(manifest.get("base_revision"))) is not None


def _same_base(manifest: Mapping[str, Any], name: str, digest: str) -> bool:
    """Whether an adapter was trained on this model, as far as can be known of both."""
    base, known = str(manifest.get("base_model", "")), str(manifest.get("base_digest", ""))
    if not digest or not known:
        return name == base
    if digest == known:
        return True
    if _pinned(manifest):
        # The hub cannot be asked here; but the model is asked for as it was.
        return digest == hub_digest(base, manifest.get("asked_revision"))
    # Commits were not always recorded: then the name is all that is known of a hub's model.
    return known == hub_digest(base, manifest.get("base_revision")) and name == base


def _refused(folder: Path, message: str) -> InputError:
    return InputError([Finding(Where(str(folder)), message, _TRAIN)])


def failure(error: BaseException, path: str) -> DuologueError:
    """Return what a failure of a worker says to the user."""
    for one in _chain(error):
        if isinstance(one, DuologueError):
            return one
        if isinstance(one, OSError) and one.errno in (errno.ENOSPC, errno.EDQUOT):
            return storage_error(one, path)
        if "OutOfMemory" in type(one).__name__ or "out of memory" in str(one):
            return DuologueError(
                "training ran out of memory: lower train.batch or train.window, set "
                "train.gradient_checkpointing, or take train.method = qlora"
            )
    text = str(error).strip() or type(error).__name__
    return DuologueError(f"training failed: {text.splitlines()[-1]}")


def _chain(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop(0)
        if one is None or one in found:
            continue
        found.append(one)
        inner = getattr(one, "worker_failures", None)
        waiting += [*(inner.values() if isinstance(inner, dict) else ())]
        waiting += [getattr(one, "cause", None), one.__cause__, one.__context__]
    return found


def size(folder: Folder) -> int:
    """Return the bytes of a folder's files."""
    infos = folder.fs.get_file_info(pafs.FileSelector(folder.path, allow_not_found=True))
    return sum(info.size or 0 for info in infos)


def free_bytes(folder: Folder) -> int | None:
    """Return the free bytes of a local folder's disk; None where that is not known."""
    if not folder.local:
        return None
    place = Path(folder.path)
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(os.fspath(place)).free
