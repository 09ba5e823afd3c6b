"""Canonical JSON and the identities made from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

ID_LENGTH = 16
"""Hex digits of an identity: 64 bits, enough that a million records collide with p < 1e-7."""


def canonical_json(value: Mapping[str, Any]) -> str:
    """One line of JSON with sorted keys and no spaces; equal values give equal text.

    Raises:
        ValueError: a NaN or an infinity, which JSON cannot carry.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def identity(value: Mapping[str, Any]) -> str:
    """The first :data:`ID_LENGTH` hex digits of the SHA-256 of :func:`canonical_json`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:ID_LENGTH]
