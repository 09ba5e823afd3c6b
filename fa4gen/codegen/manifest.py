"""Which knobs a template reads: the TOML file beside it."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from fa4gen.core.config import KNOB_NAMES
from fa4gen.core.errors import ResourceError, UnknownName

_KEYS = {"description": str, "arch": str, "knobs": list}


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a template says about itself."""

    arch: str
    """Name of the arch it is written for, e.g. ``sm90``."""
    description: str
    """One line for ``fa4gen`` listings."""
    knobs: tuple[str, ...]
    """Knobs of ``KernelConfig`` the template reads; only these are passed to it."""


def load_manifest(arch_name: str, direction: str, templates: Path) -> Manifest:
    """The manifest ``<arch>/<direction>.toml``.

    Raises:
        ResourceError: it is missing or malformed, or belongs to another arch.
        UnknownName: it lists a knob that does not exist.
    """
    path = templates / arch_name / f"{direction}.toml"
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ResourceError(
            f"manifest {path}: not found; write one with {', '.join(_KEYS)}"
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise ResourceError(f"manifest {path}: not TOML: {error}") from error
    if set(values) != set(_KEYS) or any(type(values[k]) is not t for k, t in _KEYS.items()):
        got = ", ".join(f"{key}: {type(value).__name__}" for key, value in values.items())
        allowed = ", ".join(f"{key}: {kind.__name__}" for key, kind in _KEYS.items())
        raise ResourceError(f"manifest {path}: got {got or 'nothing'}, allowed: exactly {allowed}")
    knobs = values["knobs"]
    for knob in knobs:
        if knob not in KNOB_NAMES:
            raise UnknownName("knob", str(knob), KNOB_NAMES)
    if len(set(knobs)) != len(knobs):
        raise ResourceError(f"manifest {path}: knobs: got a name twice, allowed: each once")
    if values["arch"] != arch_name:
        raise ResourceError(
            f"manifest {path}: arch: got {values['arch']!r}, allowed: {arch_name!r}, its folder"
        )
    return Manifest(values["arch"], values["description"], tuple(knobs))
