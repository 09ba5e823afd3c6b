"""Domain values to plain JSON values and back; everything read passes the typed classes here.

A number that is not finite has no place in JSON. In ``accuracy`` and ``details`` (a wrong kernel
may well be off by NaN) it is written as the text ``"nan"``, ``"inf"`` or ``"-inf"``; in a timing
it is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeVar

from fa4gen.core.canonical import identity
from fa4gen.core.config import KernelConfig
from fa4gen.core.errors import StoreError
from fa4gen.core.evaluation import (
    Accuracy,
    Evaluation,
    MeasurementPolicy,
    Provenance,
    ResourceUse,
    Timing,
)
from fa4gen.core.outcome import Outcome, Source
from fa4gen.core.problem import AttentionProblem
from fa4gen.core.verdict import Reason

LINE_FORMAT = 1
"""Version of the JSON-Lines format."""

INT32_MAX, INT64_MAX = 2**31 - 1, 2**63 - 1

UID = re.compile(r"[0-9a-f]{16,32}")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Record:
    """One measurement on its way into or out of a store."""

    uid: str
    problem: AttentionProblem
    config: KernelConfig
    policy: MeasurementPolicy
    evaluation: Evaluation
    winner_since: str | None = None
    """When it was declared the winner of its key; None for the rest."""


def utc_now() -> str:
    """Now, as UTC in ISO 8601 with microseconds: text order is time order."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def utc(text: Any, name: str) -> str:
    """A date in the form of :func:`utc_now`; a date without a zone is UTC.

    Raises:
        StoreError: not an ISO 8601 date.
    """
    try:
        date = datetime.fromisoformat(text)
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        return date.astimezone(UTC).isoformat(timespec="microseconds")
    except (TypeError, ValueError, OverflowError):
        raise StoreError(f"{name}: got {text!r}, allowed: an ISO 8601 date and time") from None


def problem_from_dict(values: Any) -> AttentionProblem:
    """A problem whose sizes fit the columns of every database.

    Raises:
        ProblemError: an unknown or missing field, or an illegal value.
        StoreError: a size beyond 32 bits.
    """
    problem = AttentionProblem.from_dict(_mapping(values, "problem"))
    check_sizes(problem)
    return problem


def check_sizes(problem: AttentionProblem) -> None:
    """Refuse a problem that does not fit the columns.

    Raises:
        StoreError: a size beyond 32 bits.
    """
    for name, value in problem.to_dict().items():
        if isinstance(value, int) and value > INT32_MAX:
            raise StoreError(f"problem.{name}: got {value}, allowed: up to 2**31 - 1 in the table")


def policy_from_text(text: Any) -> MeasurementPolicy:
    """A measurement policy such as ``graph-cold-sustained``.

    Raises:
        StoreError: not three known words.
    """
    try:
        return MeasurementPolicy.parse(text)
    except (AttributeError, TypeError, ValueError):
        raise StoreError(
            f"policy: got {text!r}, allowed: execution-l2-thermal as in {MeasurementPolicy()}"
        ) from None


def plain(value: Any, name: str) -> Any:
    """``value`` as JSON can carry it; numbers that are not finite become text.

    Raises:
        StoreError: something that is not a plain JSON value.
    """
    if isinstance(value, StrEnum):
        return value.value
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, list | tuple):
        return [plain(item, f"{name}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, Mapping):
        return {_key(key, name): plain(item, f"{name}.{key}") for key, item in value.items()}
    raise StoreError(
        f"{name}: got a {type(value).__name__}, allowed: plain JSON values (text, numbers, "
        f"true, false, null, lists, mappings); convert it in the evaluator"
    )


def _key(key: Any, name: str) -> str:
    if not isinstance(key, str):
        raise StoreError(f"{name}: got the key {key!r}, allowed: text; convert it to text")
    return str(key)


def evaluation_to_dict(evaluation: Evaluation) -> dict[str, Any]:
    """Plain JSON values by field name, nested.

    Raises:
        StoreError: a timing that is not finite, or a detail that is not plain.
    """
    given: dict[str, Any] = plain(evaluation.to_dict(), "evaluation")
    accuracy = given.get("accuracy")
    if accuracy and accuracy["source"] == Source.MEASURED:  # as before there was anything else
        del accuracy["source"]
    evaluation_from_dict(given)  # what is written can be read
    return given


def evaluation_from_dict(values: Any) -> Evaluation:
    """The inverse of :func:`evaluation_to_dict`; fields left out take their defaults.

    Raises:
        StoreError: an unknown field, or a value of the wrong type or range.
    """
    given = dict(_mapping(values, "evaluation"))
    parts: tuple[tuple[str, type[Any]], ...] = (
        ("provenance", Provenance),
        ("timing", Timing),
        ("accuracy", Accuracy),
        ("resources", ResourceUse),
    )
    for name, kind in parts:
        if given.get(name) is not None:
            given[name] = _build(kind, given[name], name)
    reasons = given.get("reasons", [])
    if not isinstance(reasons, list | tuple):
        raise StoreError(f"reasons: got {reasons!r}, allowed: a list")
    given["reasons"] = tuple(_build(Reason, item, "reasons") for item in reasons)
    return _build(Evaluation, given, "evaluation")


def record_to_line(record: Record) -> dict[str, Any]:
    """One line of a JSON-Lines file.

    Raises:
        StoreError: see :func:`evaluation_to_dict`.
    """
    evaluation = evaluation_to_dict(record.evaluation)
    line = {
        "format": LINE_FORMAT,
        "uid": record.uid,
        "problem": record.problem.to_dict(),
        "config": record.config.to_record(),
        "policy": str(record.policy),
        "evaluation": {k: v for k, v in evaluation.items() if v not in (None, "", [], {})},
    }
    if record.winner_since is not None:
        line["winner_since"] = record.winner_since
    return line


def record_from_line(values: Any) -> Record:
    """The inverse of :func:`record_to_line`; a line without a uid gets the hash of its content.

    Raises:
        Fa4genError: anything that is not exactly what fa4gen would write.
    """
    given = _mapping(values, "line")
    known = {"format", "uid", "problem", "config", "policy", "evaluation", "winner_since"}
    if given.get("format") != LINE_FORMAT:
        raise StoreError(
            f"format: got {given.get('format')!r}, allowed: {LINE_FORMAT}; a higher number was "
            f"written by a newer fa4gen, upgrade to read it"
        )
    if unknown := sorted(set(given) - known):
        raise StoreError(f"line: got unknown field {unknown}, allowed: {sorted(known)}")
    content = {name: given.get(name) for name in ("problem", "config", "policy", "evaluation")}
    uid = given["uid"] if "uid" in given else identity(plain(content, "line"))
    if not isinstance(uid, str) or not UID.fullmatch(uid):
        raise StoreError(f"uid: got {uid!r}, allowed: 16 to 32 hexadecimal digits")
    since = given.get("winner_since")
    record = Record(
        uid=uid,
        problem=problem_from_dict(given.get("problem")),
        config=KernelConfig.from_dict(_mapping(given.get("config"), "config")),
        policy=policy_from_text(given.get("policy")),
        evaluation=evaluation_from_dict(given.get("evaluation")),
        winner_since=None if since is None else utc(since, "winner_since"),
    )
    if since is not None and record.evaluation.timing is None:
        raise StoreError(
            f"winner_since: got outcome {record.evaluation.outcome.value}, allowed: ok; a failed "
            f"trial cannot win"
        )
    return record


def _mapping(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise StoreError(f"{name}: got {value!r}, allowed: a mapping of field names to values")
    return value


def _number(value: Any) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    small = abs(value) <= INT64_MAX if isinstance(value, int) else math.isfinite(value)
    return float(value) if small else None


def _any_number(value: Any) -> float | None:
    """A number, also NaN or an infinity, also as the text that :func:`plain` makes of them."""
    if isinstance(value, float) or value in ("nan", "inf", "-inf"):
        return float(value)
    return _number(value)


def _integer(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return int(value) if abs(value) <= INT64_MAX else None


def _text(value: Any) -> str | None:
    if not isinstance(value, str):
        return None
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which no database takes
        return None
    return str(value)


def _texts(value: Any) -> tuple[str, ...] | None:
    fits = isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
    return tuple(value) if fits else None


def _member(kind: type[StrEnum]) -> Callable[[Any], StrEnum | None]:
    def check(value: Any) -> StrEnum | None:
        return kind(value) if isinstance(value, str) and value in tuple(kind) else None

    return check


def _value(value: Any) -> Any:
    return value


_CHECKS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "int": (_integer, "an integer"),
    "float": (_number, "a finite number"),
    "str": (_text, "text of valid Unicode"),
    "tuple[str, ...]": (_texts, "a list of texts"),
    "dict[str, Any]": (lambda v: v if isinstance(v, dict) else None, "a mapping"),
    "Source": (_member(Source), " or ".join(Source)),
    "Outcome": (_member(Outcome), ", ".join(Outcome)),
    "Provenance": (_value, "a mapping"),
    "Timing": (_value, "a mapping"),
    "Accuracy": (_value, "a mapping"),
    "ResourceUse": (_value, "a mapping"),
    "tuple[Reason, ...]": (_value, "a list"),
}
"""Annotation of a field -> (what it becomes, None when it does not fit; the words for it)."""


def _build(kind: type[T], values: Any, name: str) -> T:
    """A dataclass from a mapping, every field checked against its annotation."""
    given = dict(_mapping(values, name))
    known = {field.name: str(field.type) for field in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(given) - set(known)):
        raise StoreError(
            f"{name}: got unknown field {', '.join(map(str, unknown))}, allowed: {', '.join(known)}"
        )
    for field_name, value in given.items():
        annotation = known[field_name]
        if value is None and annotation.endswith(" | None"):
            continue
        check, allowed = _CHECKS[annotation.removesuffix(" | None")]
        check = _any_number if kind is Accuracy and check is _number else check
        given[field_name] = check(value)
        if given[field_name] is None:
            raise StoreError(f"{name}.{field_name}: got {value!r}, allowed: {allowed}")
    try:
        return kind(**given)
    except (TypeError, ValueError) as error:
        raise StoreError(f"{name}: {error}") from None
