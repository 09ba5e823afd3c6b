"""Workloads: named lists of problems, written compactly in ``workloads/*.toml``.

Each ``[[problems]]`` table gives the fields of an :class:`AttentionProblem`; a list means every
value, several lists every combination. Three words save arithmetic::

    tokens = 32768    batch = tokens / seqlen_q, for a constant number of tokens
    hidden = 2048     num_heads_q = hidden / head_dim, for a constant width of the model
    weight = 2.0      share of the tuning budget of each problem made from this table; default 1
"""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fa4gen.core.errors import Fa4genError, ProblemError, ResourceError, UnknownName
from fa4gen.core.paths import data_dir
from fa4gen.core.problem import AttentionProblem

_TOP_KEYS = {"name", "description", "source", "problems"}


@dataclass(frozen=True)
class Workload:
    """Problems that are tuned together."""

    name: str
    problems: tuple[AttentionProblem, ...]
    """In the order they are tuned; each one once."""
    weights: tuple[float, ...]
    """Share of the tuning budget, one a problem."""
    description: str = ""
    source: str = ""
    """Where the shapes come from."""


def list_workloads() -> tuple[str, ...]:
    """Names of the workloads that come with fa4gen, sorted."""
    return tuple(sorted(path.stem for path in data_dir("workloads").glob("*.toml")))


def load_workload(path_or_name: str | Path) -> Workload:
    """The workload in a TOML file, or the one of this name that comes with fa4gen.

    Raises:
        UnknownName: no workload of this name.
        ResourceError: the file is missing, malformed, or has an impossible problem.
    """
    path = Path(path_or_name)
    if path.suffix != ".toml":
        known = list_workloads()
        if str(path_or_name) not in known:
            raise UnknownName("workload", str(path_or_name), known)
        path = data_dir("workloads") / f"{path_or_name}.toml"
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ResourceError(f"workload {path}: cannot be read ({error})") from None
    except tomllib.TOMLDecodeError as error:
        raise ResourceError(f"workload {path}: {error}") from None
    try:
        return _parse(data, path.stem)
    except (Fa4genError, TypeError) as error:
        raise ResourceError(f"workload {path}: {error}") from error


def _parse(data: Mapping[str, Any], stem: str) -> Workload:
    if unknown := sorted(set(data) - _TOP_KEYS):
        raise ProblemError(f"got unknown key {', '.join(unknown)}, allowed: {sorted(_TOP_KEYS)}")
    tables = data.get("problems")
    if not isinstance(tables, list) or not tables:
        raise ProblemError("problems: got none, allowed: one [[problems]] table or more")
    weighted: dict[AttentionProblem, float] = {}
    for table in tables:
        weight = table.get("weight", 1.0)
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not weight > 0:
            raise ProblemError(f"weight: got {weight!r}, allowed: a number above 0")
        for problem in _expand({k: v for k, v in table.items() if k != "weight"}):
            weighted.setdefault(problem, float(weight))
    return Workload(
        str(data.get("name", stem)),
        tuple(weighted),
        tuple(weighted.values()),
        str(data.get("description", "")),
        str(data.get("source", "")),
    )


def _expand(table: Mapping[str, Any]) -> list[AttentionProblem]:
    """Every combination of the lists in a table."""
    choices = [value if isinstance(value, list) else [value] for value in table.values()]
    combinations = (dict(zip(table, row, strict=True)) for row in itertools.product(*choices))
    return [AttentionProblem.from_dict(_spelled_out(values)).simplified for values in combinations]


def _spelled_out(values: dict[str, Any]) -> dict[str, Any]:
    """Without ``tokens`` and ``hidden``."""
    for word, of, makes in (
        ("tokens", "seqlen_q", "batch"),
        ("hidden", "head_dim", "num_heads_q"),
    ):
        if word not in values:
            continue
        whole, part = values.pop(word), values.get(of)
        if makes in values or type(whole) is not int or type(part) is not int or part < 1:
            raise ProblemError(
                f"{word}: got {whole!r} with {of} = {part!r}, allowed: integers, {makes} left out"
            )
        if whole % part:
            raise ProblemError(
                f"{word}: got {whole}, allowed: a multiple of {of} = {part} "
                f"({whole} % {part} = {whole % part})"
            )
        values[makes] = whole // part
    return values
