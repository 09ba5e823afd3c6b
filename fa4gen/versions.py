"""Versions of the packages fa4gen stands on, and what is known about them.

The range that pip enforces is in ``pyproject.toml``; inside it, only some versions of CuTe-DSL
have been tested, because a compiler may change what it accepts in any release.
"""

from __future__ import annotations

from importlib import metadata

CUTLASS_DSL = "nvidia-cutlass-dsl"
TESTED_CUTLASS_DSL = ("4.8.1",)
"""Versions on which every test of fa4gen has passed."""


def installed(distribution: str) -> str | None:
    """Version of an installed distribution, ``None`` where it is not installed. Imports nothing."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def cutlass_dsl_note(version: str | None = None) -> str | None:
    """What a user should know about the CuTe-DSL in use; ``None`` when it is a tested version.

    Args:
        version: the version to judge; the installed one by default.
    """
    got = version or installed(CUTLASS_DSL)
    tested = ", ".join(TESTED_CUTLASS_DSL)
    remedy = f"pip install '{CUTLASS_DSL}=={TESTED_CUTLASS_DSL[-1]}'"
    if got is None:
        return f"{CUTLASS_DSL}: not installed, needed to compile kernels; {remedy}"
    if got in TESTED_CUTLASS_DSL:
        return None
    return (
        f"{CUTLASS_DSL}: got {got}, tested with {tested}; if kernels fail to compile, "
        f"go back to a tested version: {remedy}"
    )
