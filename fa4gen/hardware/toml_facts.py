"""Strict reading of the hardware files: known keys only, and a source behind every number."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fa4gen.core.errors import ResourceError, UnknownName


@dataclass(frozen=True, slots=True)
class Facts:
    """The numbers of one table, and where each comes from."""

    values: Mapping[str, int | float]
    sources: Mapping[str, str]


def list_names(folder: Path) -> tuple[str, ...]:
    """Names of the TOML files of a folder, sorted; the file name is the key."""
    return tuple(sorted(path.stem for path in folder.glob("*.toml")))


def read_toml(folder: Path, kind: str, name: str) -> dict[str, Any]:
    """The file ``name`` of ``folder``.

    Raises:
        UnknownName: there is no such file.
        ResourceError: it is not TOML, or it calls itself something else.
    """
    path = folder / f"{name}.toml"
    if name not in list_names(folder):
        raise UnknownName(kind, name, list_names(folder))
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ResourceError(f"{path}: got invalid TOML ({error}); correct the file") from error
    if data.get("name") != name:
        raise ResourceError(
            f"{path}: name: got {data.get('name')!r}, allowed: {name!r} (the file name is the key)"
        )
    return data


def check_keys(where: str, got: Iterable[str], allowed: Iterable[str]) -> None:
    """Refuse a table whose keys are not exactly the allowed ones.

    Raises:
        ResourceError: a key is unknown or missing.
    """
    got, allowed = set(got), set(allowed)
    if unknown := sorted(got - allowed):
        raise ResourceError(
            f"{where}: got unknown {', '.join(unknown)}, allowed: {', '.join(sorted(allowed))}"
        )
    if missing := sorted(allowed - got):
        raise ResourceError(f"{where}: missing {', '.join(missing)}; add each with its source")


def read_facts(where: str, table: Mapping[str, Any], keys: Iterable[str]) -> Facts:
    """A table of ``key = { value = number, source = "..." }`` with exactly these keys.

    Raises:
        ResourceError: wrong keys, a value that is no number, or an empty source.
    """
    check_keys(where, table, keys)
    values: dict[str, int | float] = {}
    sources: dict[str, str] = {}
    for key, entry in table.items():
        here = f"{where}.{key}"
        if not isinstance(entry, dict):
            raise ResourceError(f"{here}: got {entry!r}, allowed: {{ value = ..., source = ... }}")
        check_keys(here, entry, ("value", "source"))
        value, source = entry["value"], entry["source"]
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise ResourceError(f"{here}: got {value!r}, allowed: a number of 0 or more")
        if not isinstance(source, str) or not source.strip():
            raise ResourceError(f"{here}: got no source; name the document or the measurement")
        values[key], sources[key] = value, source
    return Facts(values, sources)
