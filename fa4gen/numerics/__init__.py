"""Float64 reference attention, and the polynomials that stand in for exp2."""

from fa4gen.numerics.exp2_poly import DEGREES, coefficients, evaluate, max_relative_error
from fa4gen.numerics.reference import attention_fp64

__all__ = ["DEGREES", "attention_fp64", "coefficients", "evaluate", "max_relative_error"]
