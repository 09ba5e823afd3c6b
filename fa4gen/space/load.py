"""Loading search spaces from ``search_spaces/*.toml``, strictly."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from fa4gen.core.config import KNOB_NAMES, KernelConfig
from fa4gen.core.dtypes import DType
from fa4gen.core.errors import Fa4genError, ResourceError, UnknownName
from fa4gen.core.paths import data_dir
from fa4gen.hardware import load_arch
from fa4gen.space.space import DefaultRow, Knob, SearchSpace

_TOP_KEYS = {"name", "arch", "direction", "defaults_from", "knob", "default"}
_KNOB_KEYS = {"name", "ordered", "values", "meaning", "why"}
_ROW_KEYS = {"head_dim_max", "head_dim_v_max", "why", "config"}
_FOR_SOME = "archs"
"""Key of a knob or a default that only some archs of the family have."""


def list_spaces() -> tuple[str, ...]:
    """Names of all search spaces, sorted."""
    return tuple(sorted(path.stem for path in data_dir("search_spaces").glob("*.toml")))


def load_space(name: str) -> SearchSpace:
    """The search space ``name``.

    Raises:
        UnknownName: no such file.
        ResourceError: the file has wrong keys, an illegal value, or leaves a knob out.
    """
    return _load_from(data_dir("search_spaces"), name, None)


def space_for(arch_name: str, direction: str = "fwd") -> SearchSpace:
    """The search space of an architecture's kernel: its family's, without what only others have.

    Raises:
        UnknownName: no such arch, or no template is written for it.
    """
    name = f"{load_arch(arch_name).family}_{direction}"
    return _load_from(data_dir("search_spaces"), name, arch_name)


@cache
def _load_from(folder: Path, name: str, arch_name: str | None) -> SearchSpace:
    path = folder / f"{name}.toml"
    if not path.is_file():
        raise UnknownName("search space", name, (p.stem for p in folder.glob("*.toml")))
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        return _parse(data, name, arch_name)
    except (tomllib.TOMLDecodeError, Fa4genError) as error:
        raise ResourceError(f"{path}: {error}") from error


def _parse(data: dict[str, Any], name: str, arch_name: str | None) -> SearchSpace:
    _check_keys("search space", data, _TOP_KEYS, set())
    if data["name"] != name:
        raise ResourceError(f"name: got {data['name']!r}, allowed: {name!r}, the file name")
    arch_name = arch_name or data["arch"]
    knobs = tuple(_knob(entry) for entry in data["knob"] if _is_for(entry, arch_name))
    names = [knob.name for knob in knobs]
    if twice := {knob for knob in names if names.count(knob) > 1}:
        raise ResourceError(f"knob: got {', '.join(sorted(twice))} twice, allowed: once")
    rows = tuple(_row(entry) for entry in data["default"] if _is_for(entry, arch_name))
    space = SearchSpace(name, arch_name, data["direction"], knobs, rows, data["defaults_from"])
    for row in rows:
        if not space.contains(row.config):
            raise ResourceError(
                f"default up to {row.head_dim_max}/{row.head_dim_v_max}: got a value that no knob "
                "of the space allows; add it to the knob's values"
            )
    return space


def _is_for(entry: dict[str, Any], arch_name: str) -> bool:
    archs = entry.get(_FOR_SOME, [arch_name])
    for name in archs:
        load_arch(name)
    return arch_name in archs


def _knob(entry: dict[str, Any]) -> Knob:
    where = f"knob {entry.get('name', '?')}"
    _check_keys(where, entry, _KNOB_KEYS, {_FOR_SOME})
    name, values = entry["name"], entry["values"]
    if name not in KNOB_NAMES:
        raise UnknownName("knob", name, KNOB_NAMES)
    if not values or len(set(values)) != len(values):
        raise ResourceError(f"{where}.values: got {values!r}, allowed: one or more, each once")
    if entry["ordered"] and sorted(values) != values:
        raise ResourceError(f"{where}.values: got {values!r}, allowed: ascending, as it is ordered")
    if not entry["meaning"].strip() or not entry["why"].strip():
        raise ResourceError(f"{where}: meaning and why: got an empty text; write both")
    typed = tuple(getattr(KernelConfig.from_dict({name: value}), name) for value in values)
    return Knob(name, bool(entry["ordered"]), typed, entry["meaning"], entry["why"])


def _row(entry: dict[str, Any]) -> DefaultRow:
    _check_keys("default", entry, _ROW_KEYS, {"causal", "dtype", _FOR_SOME})
    return DefaultRow(
        head_dim_max=entry["head_dim_max"],
        head_dim_v_max=entry["head_dim_v_max"],
        causal=entry.get("causal"),
        dtype=DType(entry["dtype"]) if "dtype" in entry else None,
        why=entry["why"],
        config=KernelConfig.from_dict(entry["config"]),
    )


def _check_keys(where: str, got: dict[str, Any], needed: set[str], optional: set[str]) -> None:
    if unknown := sorted(set(got) - needed - optional):
        allowed = ", ".join(sorted(needed | optional))
        raise ResourceError(f"{where}: got unknown {', '.join(unknown)}, allowed: {allowed}")
    if missing := sorted(needed - set(got)):
        raise ResourceError(f"{where}: missing {', '.join(missing)}")
