"""Float64 reference attention, and the polynomials that stand in for exp2."""

from fa4gen.numerics.exp2_by_line import exp2_line, line_bias
from fa4gen.numerics.exp2_poly import (
    DEGREES,
    LINE,
    coefficients,
    evaluate,
    exp2_error,
    max_relative_error,
)
from fa4gen.numerics.reference import attention_fp64

__all__ = [
    "DEGREES",
    "LINE",
    "attention_fp64",
    "coefficients",
    "evaluate",
    "exp2_error",
    "exp2_line",
    "line_bias",
    "max_relative_error",
]
