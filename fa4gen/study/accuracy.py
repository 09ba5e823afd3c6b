"""How exact a configuration is, computed in NumPy as its kernel computes it; needs no GPU.

One head of a small problem is worked through by :mod:`fa4gen.numerics.online_softmax` for each
kind of input the correctness check uses. All configurations see the same inputs, so that their
errors differ by what they do and not by what they were given.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from fa4gen.core.config import KernelConfig
from fa4gen.core.dtypes import DType
from fa4gen.core.errors import ProblemError
from fa4gen.core.problem import AttentionProblem
from fa4gen.evaluate.correctness import Distribution
from fa4gen.evaluate.emulated import make_inputs
from fa4gen.hardware import Arch
from fa4gen.numerics import attention_fp64
from fa4gen.numerics.arrays import F32, F64
from fa4gen.numerics.online_softmax import (
    KernelResult,
    SoftmaxRecipe,
    attention_as_kernel,
    kernel_scores,
    round_to,
    ulp_errors,
)
from fa4gen.study.columns import polynomial_columns

ROWS, KEYS = 256, 1024
"""Of the small problem: two Q tiles, eight KV blocks of 128 keys. An RMS error of O then moves by
about 0.4 % from one draw of P's roundings to the next."""

LEAST_WEIGHT = 2.0**-24
"""Weights below this are left out of the ulp of P: they do not reach a float32 sum that has a
weight of 1 in it, and the polynomial's clamp would be counted as millions of their ulp."""

_FORMATS = {DType.BF16: (7, -126), DType.FP16: (10, -14), DType.E4M3: (3, -6)}
"""Bits after the point and least normal exponent."""
_FLOAT32 = (23, -126)


@dataclass(frozen=True, slots=True)
class Measure:
    """One way to say how exact a configuration is; less is better in all of them."""

    name: str
    label: str
    meaning: str


MEASURES: dict[str, Measure] = {
    each.name: each
    for each in (
        Measure(
            "o_error_ratio",
            "RMS error of O, relative to all-MUFU",
            "Root mean square error of O against float64, over that of the kernel with no "
            "polynomial and no threshold on the same inputs; geometric mean over the kinds.",
        ),
        Measure("o_rms", "RMS error of O", "Against float64 attention, absolute."),
        Measure("o_max", "largest error of O", "Against float64 attention, absolute."),
        Measure("lse_max", "largest error of the LSE (nat)", "Against float64 attention."),
        Measure("p_mean_ulp", "mean error of P (ulp of its type)", "P as PV reads it."),
        Measure("p_max_ulp", "largest error of P (ulp of its type)", "P as PV reads it."),
        Measure("p32_mean_ulp", "mean error of exp2 (ulp of float32)", "Before P is rounded."),
        Measure("p32_max_ulp", "largest error of exp2 (ulp of float32)", "Before P is rounded."),
    )
}
"""What a study of accuracy can be about; but for the ratio, of the worst kind of input."""

RESCALED = "rescaled_share"
"""Share of (row, KV block) pairs in which O is rescaled; no error, but what a threshold saves."""

Figures = Mapping[str, float]
"""By measure, and by ``<kind of input>_<measure>``."""


@dataclass(frozen=True)
class _Case:
    scores: F32
    v: F32
    o: F64
    lse: F64


class AccuracyLab:
    """Answers for one problem's type, head dimensions and mask.

    Args:
        problem: its lengths, batch and heads do not matter.
        arch: whose kernels.
        seed: of the inputs.

    Raises:
        ProblemError: a type that no kernel rounds P to.
    """

    def __init__(self, problem: AttentionProblem, arch: Arch, seed: int = 0) -> None:
        if problem.dtype not in _FORMATS:
            raise ProblemError(
                f"dtype: got {problem.dtype.value}, allowed in a study of accuracy: "
                f"{', '.join(_FORMATS)}, which P is rounded to"
            )
        self._problem, self._arch, self._seed = problem, arch, seed
        self._known: dict[SoftmaxRecipe, Figures] = {}

    def of(self, config: KernelConfig) -> Figures:
        """All measures of a configuration; about 0.1 s for each that computes something new."""
        recipe = SoftmaxRecipe(
            config.tile_n,
            polynomial_columns(config, self._arch),
            config.exp2_poly_degree,
            config.rescale_threshold_log2,
            self._problem.dtype,
        )
        if recipe not in self._known:
            self._known[recipe] = self._figures(recipe)
        return self._known[recipe]

    def _figures(self, recipe: SoftmaxRecipe) -> Figures:
        figures: dict[str, float] = {}
        kinds: list[dict[str, float]] = []
        for kind, case in self._cases.items():
            found = self._errors(case, recipe)
            found["o_error_ratio"] = found["o_rms"] / self._baselines(recipe.tile_n)[kind]
            kinds.append(found)
            figures |= {f"{kind}_{name}": value for name, value in found.items()}
        worst = {name: max(found[name] for found in kinds) for name in kinds[0]}
        # A worst kind would hide what a degree costs behind what a threshold costs.
        worst["o_error_ratio"] = statistics.geometric_mean(f["o_error_ratio"] for f in kinds)
        return worst | figures

    def _errors(self, case: _Case, recipe: SoftmaxRecipe) -> dict[str, float]:
        problem = self._problem
        result = attention_as_kernel(case.scores, case.v, recipe, problem.head_dim**-0.5)
        error = result.o - case.o
        return {
            "o_rms": float(np.sqrt(np.mean(error**2))),
            "o_max": float(np.abs(error).max()),
            "lse_max": float(np.abs(result.lse - case.lse).max()),
            RESCALED: result.rescaled_share,
            **_ulps(result, problem.dtype),
        }

    def _baselines(self, tile_n: int) -> dict[str, float]:
        """RMS error of O by kind, of the kernel that takes no liberty."""
        if tile_n not in self._baseline_of:
            plain = SoftmaxRecipe(tile_n, (), 1, 0.0, self._problem.dtype)
            self._baseline_of[tile_n] = {
                kind: self._errors(case, plain)["o_rms"] for kind, case in self._cases.items()
            }
        return self._baseline_of[tile_n]

    @cached_property
    def _baseline_of(self) -> dict[int, dict[str, float]]:
        return {}

    @cached_property
    def _cases(self) -> dict[str, _Case]:
        return {kind.value: self._case(kind, self._seed + i) for i, kind in enumerate(Distribution)}

    def _case(self, kind: Distribution, seed: int) -> _Case:
        """Inputs of a kind as the emulator's check draws them, and float64 attention on them."""
        asked = self._problem
        small = replace(asked, batch=1, seqlen_q=ROWS, seqlen_k=KEYS, num_heads_q=1, num_heads_kv=1)
        q, k, v = (x.astype(np.float32) for x in make_inputs(small, kind, seed))
        o, lse = attention_fp64(q, k, v, asked.head_dim**-0.5, asked.causal)
        scores = kernel_scores(q[0, :, 0], k[0, :, 0], causal=asked.causal)
        return _Case(scores, v[0, :, 0], o[0, :, 0], lse[0, 0])


def _ulps(result: KernelResult, dtype: DType) -> dict[str, float]:
    """Errors of P in units of the last place, over the weights that count."""
    exact = np.exp2(result.exact_exponent)
    counted = exact >= LEAST_WEIGHT
    exact = exact[counted]
    narrow = ulp_errors(round_to(result.p, dtype)[counted], exact, *_FORMATS[dtype])
    exponential = np.exp2(result.exponent[counted].astype(np.float64))
    wide = ulp_errors(result.p[counted], exponential, *_FLOAT32)
    return {
        "p_mean_ulp": float(narrow.mean()),
        "p_max_ulp": float(narrow.max()),
        "p32_mean_ulp": float(wide.mean()),
        "p32_max_ulp": float(wide.max()),
    }
