"""What float instructions must give, from exact rationals.

It shares nothing with the emulator: values are unpacked to fractions, computed without rounding and
rounded once. Semantics: PTX ISA 9.1, sections 9.7.3 to 9.7.9. Slow, and only for making vectors.
"""

from __future__ import annotations

import decimal
from dataclasses import dataclass
from fractions import Fraction
from math import floor, isqrt

decimal.getcontext().prec = 60


@dataclass(frozen=True)
class Format:
    """A binary floating-point format: sign, exponent, mantissa."""

    exponent: int
    mantissa: int
    bias: int
    top: str = "ieee"
    """What the highest exponent holds: ``ieee`` (infinity, NaN), ``nan`` (one NaN), ``none``."""

    @property
    def bits(self) -> int:
        return 1 + self.exponent + self.mantissa

    @property
    def sign(self) -> int:
        return 1 << (self.bits - 1)

    @property
    def largest(self) -> int:
        """The code of the largest finite value."""
        everything = self.sign - 1
        return everything - {"ieee": 1 << self.mantissa, "nan": 1, "none": 0}[self.top]

    @property
    def infinity(self) -> int:
        assert self.top == "ieee"
        return self.largest + 1

    @property
    def nan(self) -> int:
        """The NaN that instructions make; the largest value where there is none."""
        return self.sign - 1


FORMATS = {
    "f16": Format(5, 10, 15),
    "bf16": Format(8, 7, 127),
    "f32": Format(8, 23, 127),
    "f64": Format(11, 52, 1023),
    "tf32": Format(8, 10, 127),
    "e5m2": Format(5, 2, 15),
    "e4m3": Format(4, 3, 7, "nan"),
    "e3m2": Format(3, 2, 3, "none"),
    "e2m3": Format(2, 3, 1, "none"),
    "e2m1": Format(2, 1, 1, "none"),
}


@dataclass(frozen=True)
class Real:
    """A value that may be infinite or no number, with a sign even if it is zero."""

    kind: str
    """``finite``, ``inf`` or ``nan``."""
    negative: bool = False
    size: Fraction = Fraction(0)

    @property
    def value(self) -> Fraction:
        assert self.kind == "finite"
        return -self.size if self.negative else self.size

    @property
    def is_zero(self) -> bool:
        return self.kind == "finite" and self.size == 0


NAN = Real("nan")


def real(value: Fraction, zero_negative: bool = False) -> Real:
    """A finite value; the sign of zero is given."""
    return Real("finite", value < 0 or (value == 0 and zero_negative), abs(value))


def unpack(code: int, form: Format, ftz: bool = False) -> Real:
    """The value of a code; ``ftz`` makes subnormal ones zero."""
    negative, magnitude = bool(code & form.sign), code & (form.sign - 1)
    if magnitude > form.largest:
        return Real("inf", negative) if form.top == "ieee" and magnitude == form.infinity else NAN
    biased, mantissa = magnitude >> form.mantissa, magnitude & ((1 << form.mantissa) - 1)
    if biased == 0:
        size = Fraction(0 if ftz else mantissa) * power(1 - form.bias - form.mantissa)
    else:
        size = (mantissa + (1 << form.mantissa)) * power(biased - form.bias - form.mantissa)
    return Real("finite", negative, size)


def power(exponent: int) -> Fraction:
    """Two to an integer."""
    return Fraction(1 << exponent) if exponent >= 0 else Fraction(1, 1 << -exponent)


def pack(
    x: Real, form: Format, mode: str = "rn", ftz: bool = False, satfinite: bool = False
) -> int:
    """The code of ``x`` rounded once."""
    if x.kind == "nan":
        return form.nan
    sign = form.sign if x.negative else 0
    if x.kind == "inf":
        return sign | (form.largest if satfinite or form.top != "ieee" else form.infinity)
    if x.size == 0:
        return sign
    place = max(exponent(x.size), 1 - form.bias)
    scaled = x.size / power(place - form.mantissa)
    whole, rest = floor(scaled), scaled - floor(scaled)
    away = {
        "rn": rest > Fraction(1, 2) or (rest == Fraction(1, 2) and whole % 2 == 1),
        "rna": rest >= Fraction(1, 2),
        "rz": False,
        "rm": x.negative and rest > 0,
        "rp": not x.negative and rest > 0,
    }[mode]
    code = ((place + form.bias - 1) << form.mantissa) + whole + away
    if code > form.largest:
        back = mode in ("rz", "rp" if x.negative else "rm")
        return sign | (form.largest if satfinite or back or form.top != "ieee" else form.infinity)
    if ftz and code < 1 << form.mantissa:
        code = 0
    return sign | code


def exponent(size: Fraction) -> int:
    """The power of two at or below a positive number."""
    guess = size.numerator.bit_length() - size.denominator.bit_length()
    return guess if power(guess) <= size else guess - 1


def saturate(x: Real) -> Real:
    """Clamped to [0, 1]; NaN becomes +0."""
    if x.kind == "nan" or x.negative:
        return real(Fraction(0))
    return real(Fraction(1)) if x.kind == "inf" or x.size > 1 else x


def add(a: Real, b: Real, mode: str = "rn") -> Real:
    """The exact sum."""
    if "nan" in (a.kind, b.kind):
        return NAN
    if a.kind == "inf" or b.kind == "inf":
        if a.kind == b.kind and a.negative != b.negative:
            return NAN
        return a if a.kind == "inf" else b
    if a.is_zero and b.is_zero and a.negative == b.negative:
        return a
    return real(a.value + b.value, zero_negative=mode == "rm")


def negate(a: Real) -> Real:
    return Real(a.kind, not a.negative, a.size)


def multiply(a: Real, b: Real) -> Real:
    """The exact product."""
    negative = a.negative != b.negative
    if "nan" in (a.kind, b.kind):
        return NAN
    if a.kind == "inf" or b.kind == "inf":
        return NAN if a.is_zero or b.is_zero else Real("inf", negative)
    return Real("finite", negative, a.size * b.size)


def divide(a: Real, b: Real) -> Real:
    """The exact quotient."""
    negative = a.negative != b.negative
    if "nan" in (a.kind, b.kind) or (a.kind == "inf" == b.kind) or (a.is_zero and b.is_zero):
        return NAN
    if a.kind == "inf" or b.is_zero:
        return Real("inf", negative)
    if b.kind == "inf":
        return Real("finite", negative)
    return Real("finite", negative, a.size / b.size)


def square_root(a: Real) -> Real:
    """The square root to 60 digits: far more than enough for any rounding of inexact ones."""
    if a.kind == "nan" or (a.negative and not a.is_zero):
        return NAN
    if a.kind == "inf" or a.is_zero:
        return a
    scale = power(2 * (max(0, 200 - exponent(a.size)) // 2))
    root = _root(a.size * scale * scale)
    return real(root / scale)


def _root(x: Fraction) -> Fraction:
    """The square root of a number above 2^200: exact, or with a last half to say it is not."""
    root = isqrt(floor(x))
    return Fraction(root) if root * root == x else Fraction(2 * root + 1, 2)


def less(a: Real, b: Real) -> bool:
    """Whether ``a < b``; neither is NaN, and zeros are equal."""
    return _position(a) < _position(b)


def _position(a: Real) -> Fraction:
    if a.kind == "inf":
        return -power(5000) if a.negative else power(5000)
    return a.value


def choose(name: str, values: list[Real], nan: bool = False) -> Real:
    """``min`` or ``max``: NaN lose, unless ``nan``; -0 is below +0."""
    numbers = [v for v in values if v.kind != "nan"]
    if not numbers or (nan and len(numbers) < len(values)):
        return NAN
    pick = max if name == "max" else min
    return pick(numbers, key=lambda v: (_position(v), not v.negative))


def whole(x: Real, mode: str) -> Real:
    """``x`` rounded to an integer by ``rni``, ``rzi``, ``rmi`` or ``rpi``; zero keeps the sign."""
    if x.kind != "finite":
        return x
    value = x.value
    result = {
        "rni": round(value),
        "rzi": int(value),
        "rmi": floor(value),
        "rpi": -floor(-value),
    }[mode]
    return real(Fraction(result), zero_negative=x.negative)


def compare(operator: str, a: Real, b: Real) -> bool:
    """A comparison of ``setp``."""
    unordered = "nan" in (a.kind, b.kind)
    if operator in ("num", "nan"):
        return unordered == (operator == "nan")
    if unordered:
        return operator.endswith("u")
    x, y = _position(a), _position(b)
    return {
        "eq": x == y,
        "ne": x != y,
        "lt": x < y,
        "le": x <= y,
        "gt": x > y,
        "ge": x >= y,
    }[operator.removesuffix("u")]


# ---- approximated functions, to 60 digits --------------------------------------------------------


def _decimal(x: Fraction) -> decimal.Decimal:
    return decimal.Decimal(x.numerator) / decimal.Decimal(x.denominator)


def exp2(x: Fraction) -> Fraction:
    """2 to the ``x``, for ``x`` of ordinary size."""
    shift = floor(x)
    fraction = (_decimal(x - shift) * decimal.Decimal(2).ln()).exp()
    return Fraction(fraction) * power(shift)


def log2(x: Fraction) -> Fraction:
    """The binary logarithm of a positive number."""
    return Fraction(_decimal(x).ln() / decimal.Decimal(2).ln())


def tanh(x: Fraction) -> Fraction:
    """The hyperbolic tangent."""
    if abs(x) > 64:
        return Fraction(1 if x > 0 else -1)
    square = (_decimal(x) * 2).exp()
    return Fraction((square - 1) / (square + 1))


def sine(x: Fraction, cosine: bool = False) -> Fraction:
    """The sine or the cosine of an angle up to about 100, by its series."""
    term = Fraction(1) if cosine else x
    total, step = Fraction(0), 0 if cosine else 1
    while abs(term) > power(-300) or step < abs(x):
        total += term
        term = -term * x * x / ((step + 1) * (step + 2))
        term = Fraction(floor(term * power(500))) / power(500)
        step += 2
    return total
