"""The experiment file: arms of one comparison, each a run file with something set otherwise.

    name = "filters"
    run = "specs/runs/tavern.toml"
    measures = ["dialogues", "trial"]

    [[arms]]
    name = "ended"
    set.curate.filters = [{ kind = "ended" }]

What an arm sets lies over what all arms set, and that over the run file. Arms differ in one setting
unless `differ` names those in which they may: a difference between arms is to have one reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from specs.errors import Finding, InputError, Where, nearest
from specs.run_file import RunFile, finding, read_toml, resolved, validate
from specs.section import Name, Place, Section
from specs.settings import apply, leaves

Measure = Literal["dialogues", "test", "trial"]

OWN_PLACE = ("run.name", "run.out")
"""Keys of a run file that every arm has of its own."""


class Arm(Section):
    """One way of doing it; `set` is a piece of a run file."""

    name: Name
    set: dict[str, Any] = Field(default_factory=dict)


class Sweep(Section):
    """Every arm is done once for each value of a key, such as `train.dialogues`."""

    key: Annotated[str, Field(pattern=r"^[a-z_]+(\.[A-Za-z0-9_-]+)+$")]
    values: Annotated[tuple[int | float | str | bool, ...], Field(min_length=2)]


class ExperimentFile(Section):
    """A whole experiment file.

    Attributes:
        run: the run file that all arms begin with.
        out: where the experiment's folder goes, in which each arm has its own.
        measures: `dialogues`: what was written; `test`: the adapter trained on it, on held-out
            dialogues; `trial`: the same adapter, in fresh dialogues with the same users
            (`rounds.trial` of them).
        test: the arm on whose test split all are measured; None for the first.
        differ: settings, or tables, in which arms may differ although there are several.
    """

    name: Name
    run: Place
    out: Annotated[Place, Field(min_length=1)] = "runs"
    measures: Annotated[tuple[Measure, ...], Field(min_length=1)]
    test: str | None = None
    differ: tuple[str, ...] = ()
    set: dict[str, Any] = Field(default_factory=dict)
    arms: Annotated[tuple[Arm, ...], Field(min_length=2)]
    sweep: Sweep | None = None

    @property
    def learns(self) -> bool:
        """Whether any of its measures is of an adapter, which has to be trained."""
        return not {"test", "trial"}.isdisjoint(self.measures)

    @model_validator(mode="after")
    def _names(self) -> ExperimentFile:
        names = [arm.name for arm in self.arms]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two arms are called {', '.join(map(repr, twice))}")
        if self.test is not None and self.test not in names:
            raise ValueError(f"test names the arm {self.test!r}, which is not there")
        values = [str(value) for value in self.sweep.values] if self.sweep else []
        if twice := sorted({value for value in values if values.count(value) > 1}):
            raise ValueError(f"sweep.values has {', '.join(twice)} more than once")
        return self


@dataclass(frozen=True, slots=True)
class Case:
    """One run of an experiment: an arm, at one value of the sweep.

    Attributes:
        value: of the sweep; None where there is none.
    """

    arm: str
    value: Any
    run: RunFile

    @property
    def name(self) -> str:
        """What it is called, in its experiment."""
        return self.run.run.name


@dataclass(frozen=True, slots=True)
class Experiment:
    """An experiment file with the runs that it makes, arm by arm, value by value."""

    file: ExperimentFile
    cases: tuple[Case, ...]

    @property
    def place(self) -> str:
        """The experiment's folder, or its URI."""
        return _inside(self.file.out, self.file.name)


def _inside(out: str, name: str) -> str:
    path, mark, options = out.partition("?" if "://" in out else "\0")
    return f"{path.rstrip('/')}/{name}{mark}{options}"


def load_experiment(path: str | Path, settings: Sequence[str] = ()) -> Experiment:
    """Read an experiment file, and the run file that it begins with.

    Args:
        settings: `key.path=value` over every arm's run file; `name`, `out`, `run` (the path of
            another run file) and `sweep.values` are the experiment's own.

    Raises:
        InputError: with every finding: what cannot be used, or arms that differ in more than one
            setting without saying so.
    """
    source = str(path)
    data = read_toml(Path(path), "experiment file")
    own = [one for one in settings if _of_experiment(_key(one))]
    apply(data, own, ExperimentFile)
    try:
        file = ExperimentFile.model_validate(data)
    except ValidationError as error:
        raise InputError(_findings(error, source)) from None
    base = read_toml(Path(file.run), "run file")
    common = [one for one in settings if one not in own]
    cases: list[Case] = []
    wrong: list[Sequence[Finding]] = []
    for arm in file.arms:
        for value in file.sweep.values if file.sweep else (None,):
            try:
                cases.append(_case(file, base, arm, value, common, source))
            except InputError as error:
                wrong.append(error.findings)
    findings = [*_of_all(file, source), *_over_arms(file, common)]
    findings += _once(wrong, f"{source}: all arms" if not cases else "")
    findings = findings or [
        *_namesakes(cases, source),
        *_differences(file, cases, source),
        *_untried(file, cases, source),
        *_unnamed(file, base, cases, common),
    ]
    if findings:
        raise InputError(findings)
    return Experiment(file, tuple(cases))


def _once(wrong: Sequence[Sequence[Finding]], all_arms: str) -> list[Finding]:
    """Return what is wrong with arms, each thing once.

    Args:
        wrong: by run.
        all_arms: how a place in what they have in common is named; empty where not all are wrong.
    """
    places: dict[tuple[str, str], list[Where]] = {}
    for found in wrong:
        for one in dict.fromkeys(found):
            places.setdefault((one.message, one.hint), []).append(one.where)
    return [
        Finding(where, message, hint)
        for (message, hint), those in places.items()
        for where in _common(those, len(wrong), all_arms)
    ]


def _common(places: Sequence[Where], runs: int, all_arms: str) -> Iterable[Where]:
    distinct = dict.fromkeys(places)
    if all_arms and len(places) == runs and len(distinct) > 1:
        return [Where(all_arms)]
    return distinct


def _key(setting: str) -> str:
    return setting.partition("=")[0].strip()


def _of_experiment(key: str) -> bool:
    """Whether a setting is the experiment's, not every arm's: no run file has such a key."""
    return key == "run" or key.partition(".")[0] in ExperimentFile.model_fields.keys() - {"run"}


def _of_all(file: ExperimentFile, source: str) -> Iterator[Finding]:
    """Yield settings of the file that every arm has of its own, so that they would do nothing."""
    said = [("set", file.set), *((f"arms: {arm.name}: set", arm.set) for arm in file.arms)]
    keys = [(where, key) for where, piece in said for key, _ in leaves(piece)]
    keys += [("sweep.key", file.sweep.key)] if file.sweep else []
    for where, key in keys:
        if key in _PLACES:
            yield Finding(Where(source), f"{where}: {key} is every arm's own", _OWN)


def _over_arms(file: ExperimentFile, settings: Sequence[str]) -> Iterator[Finding]:
    """Yield settings of the command line that would make arms alike which have other names."""
    pieces = [dict(leaves(merged(file.set, arm.set))) for arm in file.arms]
    set_ = dict.fromkeys(key for one in pieces for key in one)
    apart = [
        key for key in set_ if any(one.get(key) != pieces[0].get(key, _UNSET) for one in pieces)
    ]
    apart += [file.sweep.key] if file.sweep else []
    for setting in settings:
        key, where = _key(setting), Where(f"--set {setting}")
        if any(_within(place, key) for place in _PLACES):
            yield Finding(where, "would put all arms into one folder", _OWN)
        elif over := [one for one in apart if _within(one, key) or _within(key, one)]:
            message = f"would be the same in all arms, which are there to differ in {over[0]}"
            yield Finding(where, message, "Change the arms in the experiment file, or its sweep.")


_UNSET: Any = object()
_PLACES = (*OWN_PLACE, "run.round")
_OWN = (
    "An arm's folder is made of the experiment's out and name (--set name=NAME) and its own name."
)


def _namesakes(cases: Sequence[Case], source: str) -> Iterator[Finding]:
    """Yield runs that would lie in one folder: `a-1` at the value 2, and `a` at `1-2`."""
    names = [case.name for case in cases]
    for name in sorted({name for name in names if names.count(name) > 1}):
        hint = "Rename an arm, or leave out one of the sweep's values that are written alike."
        yield Finding(Where(source), f"two runs would be called {name}", hint)


def _untried(file: ExperimentFile, cases: Sequence[Case], source: str) -> Iterator[Finding]:
    if "trial" in file.measures and not all(case.run.rounds.trial for case in cases):
        message = "measures has a trial, of no dialogues"
        yield Finding(Where(source), message, "Say of how many: set.rounds.trial = 20")


def _unnamed(
    file: ExperimentFile, base: Mapping[str, Any], cases: Sequence[Case], settings: Sequence[str]
) -> Iterator[Finding]:
    """Yield engines that only the command line speaks of: a misspelt one's settings go nowhere."""
    pieces = [base, file.set, *(arm.set for arm in file.arms)]
    known = {name for one in pieces for name in _engines(one)}
    known |= {name for case in cases for name in case.run.named_engines}
    for setting in settings:
        parts = setting.partition("=")[0].strip().split(".")
        if parts[0] == "engines" and len(parts) > 1 and parts[1] not in known:
            message = f"engines.{parts[1]} is an engine that nothing names"
            yield Finding(Where("--set"), f"{message}{nearest(parts[1], known)}")


def _engines(data: Mapping[str, Any]) -> Iterator[str]:
    engines = data.get("engines")
    yield from engines if isinstance(engines, Mapping) else ()


def _case(
    file: ExperimentFile,
    base: Mapping[str, Any],
    arm: Arm,
    value: Any,
    settings: Sequence[str],
    source: str,
) -> Case:
    data = merged(merged(base, file.set), arm.set)
    if not file.learns:  # nothing is learned, and nothing held back
        data = merged(data, {"curate": {"validation": 0.0, "test": 0.0}})
    name = arm.name
    if file.sweep is not None:
        data = merged(data, _nested(file.sweep.key, value))
        name = f"{name}-{_in_name(value)}"
    data = merged(data, {"run": {"name": name, "out": _inside(file.out, file.name)}})
    data = deepcopy(data)  # settings are put into it, and the pieces belong to all arms
    apply(data, settings, RunFile)
    return Case(arm.name, value, validate(data, f"{source}: arm {arm.name}"))


def _in_name(value: Any) -> str:
    """Return a sweep's value as a part of a run's name, whatever it is: a model's id, a path."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", str(value))


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return two pieces of a run file, the second over the first; lists replace lists."""
    found = dict(below)
    for key, value in above.items():
        under = found.get(key)
        if isinstance(under, Mapping) and isinstance(value, Mapping):
            found[key] = merged(under, value)
        else:
            found[key] = value
    return found


def _nested(key: str, value: Any) -> dict[str, Any]:
    first, _, rest = key.partition(".")
    return {first: _nested(rest, value) if rest else value}


def _differences(file: ExperimentFile, cases: Sequence[Case], source: str) -> Iterator[Finding]:
    """Yield a finding where arms differ in more than one setting without saying so."""
    swept = file.sweep.key if file.sweep else ""
    settings = [dict(leaves(resolved(case.run))) for case in cases]
    keys = dict.fromkeys(key for one in settings for key in one)
    apart = [
        key
        for key in keys
        if key not in (*OWN_PLACE, swept)
        and not any(_within(other, key) and other != key for other in keys)  # a table, empty in one
        and any(one.get(key) != settings[0].get(key) for one in settings)
    ]
    undeclared = [key for key in apart if not any(_within(key, one) for one in file.differ)]
    if not apart:
        message = "all arms are the same: they set nothing that makes a difference"
        yield Finding(Where(source), message, "Say what an arm sets otherwise: set.KEY = VALUE")
    elif undeclared and len(apart) > 1:
        message = f"arms differ in more than one setting: {', '.join(apart)}"
        hint = (
            "A difference between them would have more than one reason. Take one out, or say that "
            f"it is meant: differ = {list(apart)}"
        )
        yield Finding(Where(source), message, hint.replace("'", '"'))


def _within(key: str, table: str) -> bool:
    return key == table or key.startswith(f"{table}.")


def _findings(error: ValidationError, source: str) -> list[Finding]:
    details = error.errors()
    # An arm that is none is not counted: that there are too few is no fault of its own then.
    within = any(detail["loc"][:1] == ("arms",) and len(detail["loc"]) > 1 for detail in details)
    return [
        finding(detail, source, ExperimentFile)
        for detail in details
        if not (within and detail["loc"] == ("arms",))
    ]
