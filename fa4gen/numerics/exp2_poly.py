"""Polynomials for ``2 ** f`` on ``[-0.5, 0.5]``, as the kernels evaluate them.

A kernel splits ``x`` into the nearest integer ``n`` and ``f = x - n``, evaluates the polynomial by
Horner's rule with FMA in float32, and adds ``n`` to the exponent. The constant term is exactly 1,
so ``f == 0`` gives exactly ``2 ** n`` and a row's own maximum weighs exactly 1. Degree 1 is no
such polynomial but the line of :mod:`fa4gen.numerics.exp2_by_line`.

The data file is made by :mod:`fa4gen.numerics.fit_exp2`.
"""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fa4gen.core.config import KernelConfig
from fa4gen.core.errors import UnknownName
from fa4gen.numerics import exp2_by_line

_DATA = Path(__file__).parent / "exp2_poly.toml"

DEGREES = (2, 3, 4, 5)
"""Degrees there are coefficients for."""

LINE = 1
"""The degree that has none: a line through each octave."""

Float32Array = npt.NDArray[np.float32]


def coefficients(degree: int) -> tuple[float, ...]:
    """``(1.0, c1, ..., c_degree)``, lowest order first; each is exactly a float32.

    Raises:
        UnknownName: no polynomial of this degree.
    """
    return _load(degree)[0]


def max_relative_error(degree: int) -> float:
    """Largest relative error of ``2 ** x`` as kernels compute it, float32 rounding included.

    Raises:
        UnknownName: no polynomial of this degree.
    """
    return exp2_by_line.MAX_RELATIVE_ERROR if degree == LINE else _load(degree)[1]


def exp2_error(config: KernelConfig) -> float:
    """Largest relative error of exp2 in a kernel with these knobs; 0 where all of it is the MUFU's.

    Raises:
        UnknownName: no polynomial of this degree.
    """
    return max_relative_error(config.exp2_poly_degree) if config.exp2_poly_fraction else 0.0


def evaluate(f: Float32Array, terms: tuple[float, ...]) -> Float32Array:
    """Horner's rule with FMA in float32, bit for bit what the kernels compute.

    The product of two float32 is exact in float64, so one rounding of the float64 sum to float32
    differs from a true FMA only in ties that double rounding breaks, by half an ulp's rounding.
    """
    result = np.full_like(f, terms[-1], dtype=np.float32)
    for term in reversed(terms[:-1]):
        wide = result.astype(np.float64) * f.astype(np.float64) + term
        result = wide.astype(np.float32)
    return result


@cache
def _load(degree: int) -> tuple[tuple[float, ...], float]:
    if degree not in DEGREES:
        raise UnknownName("exp2 polynomial degree", str(degree), map(str, DEGREES))
    entry = tomllib.loads(_DATA.read_text(encoding="utf-8"))[f"degree_{degree}"]
    return tuple(float.fromhex(term) for term in entry["coefficients"]), entry["max_relative_error"]
