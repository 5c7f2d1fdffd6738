"""The run files that are shipped: they load, and a comparison's two arms differ in their policy."""

from __future__ import annotations

from pathlib import Path

import pytest

from specs.run_file import RunFile, load

RUNS = Path(__file__).resolve().parents[2] / "specs" / "runs"


def alike(run: RunFile) -> dict[str, object]:
    """Return what both arms of a comparison must have in common."""
    kept = run.model_dump(exclude={"policy": True, "evaluate": {"arm"}, "run": {"name"}})
    return dict(kept)


@pytest.mark.parametrize("path", sorted(RUNS.glob("*.toml")), ids=lambda path: path.stem)
def test_a_shipped_run_file_loads(path: Path) -> None:
    run = load(str(path), [])
    assert run.run.name == path.stem


@pytest.mark.parametrize("name", ["gate", "full"])
def test_the_arms_of_a_comparison_differ_in_their_policy_alone(name: str) -> None:
    one = load(str(RUNS / f"{name}.toml"), [])
    other = load(str(RUNS / f"{name}_single_prompt.toml"), [])
    assert alike(one) == alike(other)
    assert (one.policy.kind, other.policy.kind) == ("walk", "single_prompt")
