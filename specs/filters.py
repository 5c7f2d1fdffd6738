"""The filters and functions that expressions and templates may use; there are no others.

Each takes the frame first, pays from its budget before it works, and raises Fault for values of
the wrong type. None changes what it is given.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from specs.comparisons import TESTS, Function, weigh, whole
from specs.frames import (
    DOCUMENTS,
    TEXT_LIMIT,
    Fault,
    Frame,
    UndefinedFault,
    bounded_number,
    bounded_text,
    is_list,
    is_number,
    items_of,
    kind,
    member,
    text_of,
)

_WORD = re.compile(r"[^\W_][\w']*", re.UNICODE)


def _text(frame: Frame, value: Any) -> str:
    """Return the value as text, paid for."""
    text = text_of(value)
    frame.spend(len(text) // 32 + 1)
    return text


def _number(value: Any) -> Any:
    if not is_number(value):
        raise Fault(f"expected a number, got {kind(value)}")
    return value


def _by(frame: Frame, items: Sequence[Any], attribute: Any) -> list[Any]:
    """Return the items, or the attribute (a dotted path) of each."""
    if attribute is None:
        return list(items)
    keys: list[Any] = [attribute]
    if isinstance(attribute, str):
        keys = [int(key) if key.isdecimal() else key for key in attribute.split(".")]
    frame.spend(len(items) * len(keys))
    values = list(items)
    for key in keys:
        values = [member(value, key) for value in values]
    return values


def _comparable(frame: Frame, values: Sequence[Any]) -> list[Any]:
    """Return sort keys; numbers sort among numbers, text among text without regard to case."""
    if all(is_number(value) for value in values):
        return list(values)
    if all(isinstance(value, str) for value in values):
        frame.spend(sum(map(len, values)) // 32)
        return [value.lower() for value in values]
    raise Fault("only numbers, or only texts, can be put in order")


def _key(frame: Frame, value: Any) -> Any:
    """Return something hashable that is equal for equal JSON values."""
    if value is None or isinstance(value, (str, bool)):
        return (type(value).__name__, value)
    if is_number(value):
        return ("number", value)
    weigh(frame, value)
    return json.dumps(value, sort_keys=True, default=str)


def _length(frame: Frame, value: Any) -> int:
    if isinstance(value, (str, Mapping)) or is_list(value):
        return len(value)
    raise Fault(f"{kind(value)} has no length")


def _join(frame: Frame, value: Any, d: str = "", attribute: Any = None) -> str:
    parts = [_text(frame, item) for item in _by(frame, items_of(value, frame), attribute)]
    separator = _text(frame, d)
    if sum(map(len, parts)) + len(separator) * len(parts) > TEXT_LIMIT + len(separator):
        raise Fault("a joined text is too long")
    return bounded_text(separator.join(parts))


_NOTHING: Any = object()


def _map(frame: Frame, value: Any, *, attribute: Any, default: Any = _NOTHING) -> list[Any]:
    items = items_of(value, frame)
    if default is _NOTHING:
        return _by(frame, items, attribute)
    values = []
    for item in items:
        try:
            values.extend(_by(frame, [item], attribute))
        except UndefinedFault:
            values.append(default)
    return values


def _chosen(
    frame: Frame, value: Any, attribute: Any, name: str, operands: Sequence[Any]
) -> list[tuple[Any, bool]]:
    """Return, for each item, the item and whether it, or its attribute, passes the test."""
    if name not in TESTS:
        raise Fault(f"there is no test {name!r}")
    items = items_of(value, frame)
    test = TESTS[name]
    return [
        (item, test(frame, one, *operands))
        for item, one in zip(items, _by(frame, items, attribute), strict=True)
    ]


def _selectattr(
    frame: Frame, value: Any, attribute: str, test: str = "truthy", *operands: Any
) -> list[Any]:
    return [item for item, holds in _chosen(frame, value, attribute, test, operands) if holds]


def _rejectattr(
    frame: Frame, value: Any, attribute: str, test: str = "truthy", *operands: Any
) -> list[Any]:
    return [item for item, holds in _chosen(frame, value, attribute, test, operands) if not holds]


def _select(frame: Frame, value: Any, test: str = "truthy", *operands: Any) -> list[Any]:
    return [item for item, holds in _chosen(frame, value, None, test, operands) if holds]


def _reject(frame: Frame, value: Any, test: str = "truthy", *operands: Any) -> list[Any]:
    return [item for item, holds in _chosen(frame, value, None, test, operands) if not holds]


def _first(frame: Frame, value: Any) -> Any:
    if not isinstance(value, str) and not is_list(value):
        raise Fault(f"expected a list, got {kind(value)}")
    if not value:
        raise UndefinedFault("an empty list has no first item")
    return value[0]


def _last(frame: Frame, value: Any) -> Any:
    if not isinstance(value, str) and not is_list(value):
        raise Fault(f"expected a list, got {kind(value)}")
    if not value:
        raise UndefinedFault("an empty list has no last item")
    return value[-1]


def _lower(frame: Frame, value: Any) -> str:
    return _text(frame, value).lower()


def _upper(frame: Frame, value: Any) -> str:
    return _text(frame, value).upper()


def _capitalize(frame: Frame, value: Any) -> str:
    return _text(frame, value).capitalize()


def _title(frame: Frame, value: Any) -> str:
    text = _text(frame, value)
    frame.spend(len(text) // 4)
    return _WORD.sub(lambda word: word[0].capitalize(), text)


def _lower_first(frame: Frame, value: Any) -> str:
    text = _text(frame, value)
    return text[:1].lower() + text[1:]


def _sentence(frame: Frame, value: Any) -> str:
    """Return the text as a sentence: first letter upper, and a final stop where it has none."""
    text = _text(frame, value).strip()
    if not text:
        return text
    text = text[:1].upper() + text[1:]
    return text if text.rstrip("\"'”’)»").endswith((".", "!", "?", "…", ":")) else text + "."


def _trim(frame: Frame, value: Any) -> str:
    return _text(frame, value).strip()


def _split(frame: Frame, value: Any, sep: str = ",") -> list[str]:
    text, separator = _text(frame, value), text_of(sep)
    if not separator:
        raise Fault("`split` needs a separator")
    parts = text.split(separator)
    frame.spend(len(parts))
    return [part.strip() for part in parts if part.strip()]


def _replace(frame: Frame, value: Any, old: str, new: str) -> str:
    text, wanted, instead = _text(frame, value), text_of(old), text_of(new)
    if not wanted:
        raise Fault("`replace` needs something to replace")
    grown = len(text) + text.count(wanted) * (len(instead) - len(wanted))
    if grown > TEXT_LIMIT:
        raise Fault("`replace` makes the text too long")
    frame.spend(grown // 32 + 1)
    return text.replace(wanted, instead)


def _round(frame: Frame, value: Any, precision: Any = 0) -> Any:
    if not isinstance(precision, int) or abs(precision) > 15:
        raise Fault("`round` takes a whole number of places")
    number = _number(value)
    return round(number, precision) if precision else round(number)


def _int(frame: Frame, value: Any, default: Any = _NOTHING) -> Any:
    try:
        if isinstance(value, bool):
            return int(value)
        number = value if is_number(value) else float(text_of(value)[:40].strip())
        return int(bounded_number(number))
    except (Fault, ValueError, OverflowError):
        if default is _NOTHING:
            raise Fault(f"{value!r:.40} is no whole number") from None
        return default


def _float(frame: Frame, value: Any, default: Any = _NOTHING) -> Any:
    try:
        return bounded_number(float(value if is_number(value) else text_of(value)[:40].strip()))
    except (Fault, ValueError, OverflowError):
        if default is _NOTHING:
            raise Fault(f"{value!r:.40} is no number") from None
        return default


def _sum(frame: Frame, value: Any, attribute: Any = None, start: Any = 0) -> Any:
    values = _by(frame, items_of(value, frame), attribute)
    return bounded_number(sum(map(_number, values), _number(start)))


def _extreme(frame: Frame, value: Any, attribute: Any, choose: Function) -> Any:
    items = items_of(value, frame)
    if not items:
        raise UndefinedFault("an empty list has no smallest and no greatest item")
    keys = _comparable(frame, _by(frame, items, attribute))
    return items[choose(range(len(keys)), key=keys.__getitem__)]


def _min(frame: Frame, value: Any, attribute: Any = None) -> Any:
    return _extreme(frame, value, attribute, min)


def _max(frame: Frame, value: Any, attribute: Any = None) -> Any:
    return _extreme(frame, value, attribute, max)


def _sort(frame: Frame, value: Any, reverse: bool = False, attribute: Any = None) -> list[Any]:
    items = items_of(value, frame)
    keys = _comparable(frame, _by(frame, items, attribute))
    frame.spend(4 * len(items))
    order = sorted(range(len(keys)), key=keys.__getitem__, reverse=bool(reverse))
    return [items[index] for index in order]


def _unique(frame: Frame, value: Any, attribute: Any = None) -> list[Any]:
    items = items_of(value, frame)
    frame.spend(4 * len(items))
    kept: dict[Any, Any] = {}
    for item, key in zip(items, _by(frame, items, attribute), strict=True):
        kept.setdefault(_key(frame, key), item)
    return list(kept.values())


def _list(frame: Frame, value: Any) -> list[Any]:
    if isinstance(value, str):
        frame.spend(len(value))
        return list(value)
    return list(items_of(value, frame))


def _string(frame: Frame, value: Any) -> str:
    return _text(frame, value)


def _abs(frame: Frame, value: Any) -> Any:
    return abs(_number(value))


FILTERS: Mapping[str, Function] = {
    "abs": _abs,
    "capitalize": _capitalize,
    "count": _length,
    "first": _first,
    "float": _float,
    "int": _int,
    "join": _join,
    "last": _last,
    "length": _length,
    "list": _list,
    "lower": _lower,
    "lower_first": _lower_first,
    "map": _map,
    "max": _max,
    "min": _min,
    "reject": _reject,
    "rejectattr": _rejectattr,
    "replace": _replace,
    "round": _round,
    "select": _select,
    "selectattr": _selectattr,
    "sentence": _sentence,
    "sort": _sort,
    "split": _split,
    "string": _string,
    "sum": _sum,
    "title": _title,
    "trim": _trim,
    "unique": _unique,
    "upper": _upper,
}
"""By name. `default` is part of the evaluator: it alone sees what is undefined."""


def _same(frame: Frame, item: Any, wanted: Any) -> bool:
    if isinstance(item, Mapping) and not isinstance(wanted, Mapping):
        item = item.get("id")
    weigh(frame, item)
    if isinstance(item, (str, int)) and isinstance(wanted, (str, int)):
        return str(item) == str(wanted)
    return bool(item is not None and item == wanted)


def _position(frame: Frame, items: Any, id: Any) -> int:
    """Return the 1-based place of the item with that id, or equal to it; 0 when there is none."""
    for index, item in enumerate(items_of(items, frame), start=1):
        if _same(frame, item, id):
            return index
    return 0


def _pick(frame: Frame, items: Any) -> Any:
    """Return one of the items, drawn by the dialogue's own generator."""
    found = items_of(items, frame)
    if not found:
        raise Fault("`pick` has nothing to pick from")
    if frame.draws is None:
        raise Fault("`pick` cannot be used here: nothing is drawn")
    return found[frame.draws.randrange(len(found))]


def _nth(frame: Frame, items: Any, n: Any) -> Any:
    """Return the n-th item, counted from 1."""
    found = items_of(items, frame)
    if not 1 <= whole(n) <= len(found):
        raise UndefinedFault(f"there is no item {n} (counted from 1) among {len(found)}")
    return found[n - 1]


def _document(frame: Frame, id: Any) -> Any:
    """Return the document of that id, wherever it has been found or not."""
    found = frame.look_up(DOCUMENTS).get(text_of(id)) if id is not None else None
    if found is None:
        raise UndefinedFault(f"there is no document {id!r:.40}")
    return found


def _documents(frame: Frame, ids: Any = _NOTHING) -> list[Any]:
    """Return the documents of these ids, in their order; without ids, all there are."""
    if ids is not _NOTHING:
        return [_document(frame, id_) for id_ in items_of(ids, frame)]
    found = frame.look_up(DOCUMENTS)
    frame.spend(len(found))
    return list(found.values())


FUNCTIONS: Mapping[str, Function] = {
    "document": _document,
    "documents": _documents,
    "nth": _nth,
    "pick": _pick,
    "position": _position,
}
