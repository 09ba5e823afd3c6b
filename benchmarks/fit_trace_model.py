"""The constants of the trace-driven model: fitted on some kernels, tested on others.

    python benchmarks/fit_trace_model.py hopper [--write]
    python benchmarks/fit_trace_model.py hopper --at-most 0      # test what the files say
    python benchmarks/fit_trace_model.py blackwell

Every constant has a name, bounds and a meaning; least squares on the logarithms of times, within
the bounds. Hopper: the sweep that was measured on an H200, in cycles, since the clock was read
beside every time. Fitted are some kernels at 1024 and 4096 tokens; tested are others at 2048 and
8192. Blackwell: FlashAttention-4's own kernels and times that others have published. Nothing is
fitted on them: what the machines share is taken over from Hopper, and all of it is a test.
"""

from __future__ import annotations

import argparse
import gc
import random
import re
import sys
from argparse import Namespace
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from blackwell_model import published
from scipy.optimize import least_squares
from sweep_model import SWEEP, pairs_of
from traced_kernels import Kernel, Ours, Traced, trace_all, traced

from fa4gen.core.config import KernelConfig
from fa4gen.core.problem import AttentionProblem, KernelSignature
from fa4gen.hardware import load_arch, load_sku
from fa4gen.perf.trace import TileTiming, Timing, load_timing, predict_traced, time_tile

TIMINGS = Path(__file__).resolve().parents[1] / "fa4gen" / "perf" / "trace" / "timings"
STEP = 0.08
"""Of a bound's width: replays are no smooth functions, so differences are taken over some way."""
FITTED_LENGTHS = frozenset({1024, 4096})
"""Of the sweep's four; the other two are for the test."""
MIDDLE = 0.5
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Constant:
    """One number of the model."""

    name: str
    """Of :class:`fa4gen.perf.trace.Timing`."""
    low: float
    high: float
    fact: str = ""
    """In the TOML file, if it has another name there."""


COPY = "copy_bytes_per_clk", "copy_bytes_per_clk_sm"
CONSTANTS = {
    "hopper": (
        Constant("issue_slots", 1.0, 2.0),
        Constant("steal", 0.0, 1.0),
        Constant("port_share", 0.0, 1.0),
        Constant(COPY[0], 25.0, 64.0, COPY[1]),
        Constant("wake", 5.0, 100.0),
        Constant("cta_start", 0.0, 2500.0),
    ),
    "blackwell": (),
}
FILES = {"hopper": "sm90"}


@dataclass(frozen=True)
class Case:
    """A kernel on a problem, with a time to compare with."""

    kernel: Kernel
    problem: AttentionProblem
    config: KernelConfig
    sku: str
    seen_us: float
    clock_mhz: float | None
    """Read beside it; ``None``: the model's own."""
    name: str
    group: str
    """Part of the table."""
    fitted: bool

    def error(self, tile: TileTiming) -> float:
        """Logarithm of the predicted over the seen time."""
        sku = load_sku(self.sku)
        found = predict_traced(self.problem, self.config, sku, tile, self.clock_mhz)
        return float(np.log(found.time_us / self.seen_us))


def hopper_cases(kernels: int, others: int, seed: int = 0) -> list[Case]:
    """Of the measured sweep.

    Args:
        kernels: how many of those that were measured at every length; half of them are fitted.
        others: how many of those that were measured at one length only, for the test.
        seed: of the choice.
    """
    by_kernel: dict[tuple[KernelSignature, KernelConfig], list[Case]] = defaultdict(list)
    for problem, pairs in pairs_of(SWEEP, load_sku("h200")).items():
        for pair in pairs:
            made = Ours(problem.signature, pair.config, "sm90")
            case = Case(
                kernel=made,
                problem=problem,
                config=pair.config,
                sku="h200",
                seen_us=pair.own_us,
                clock_mhz=pair.clock_mhz,
                name=f"{problem} {pair.config.tile_m}x{pair.config.tile_n}",
                group=f"head_dim {problem.head_dim}",
                fitted=problem.seqlen_q in FITTED_LENGTHS,
            )
            by_kernel[problem.signature, pair.config].append(case)
    rng = random.Random(seed)
    ordered = sorted(by_kernel, key=lambda key: (key[1].config_id, str(key[0])))
    everywhere = [key for key in ordered if len(by_kernel[key]) == len(FITTED_LENGTHS) * 2]
    once = [key for key in ordered if len(by_kernel[key]) == 1]
    chosen = _spread(rng.sample(everywhere, len(everywhere)), kernels)
    found: list[Case] = []
    for number, key in enumerate(chosen):
        # A kernel is for the fit or for the test, and so is a problem: what is neither is left out.
        for_fit = number % 2 == 0
        found += [case for case in by_kernel[key] if case.fitted == for_fit]
    for key in rng.sample(once, others):
        found += [case for case in by_kernel[key] if not case.fitted]
    return found


def _spread(
    keys: Sequence[tuple[KernelSignature, KernelConfig]], count: int
) -> list[tuple[KernelSignature, KernelConfig]]:
    """The first ones of each kind of problem in turn, two at a time."""
    groups: dict[KernelSignature, list[tuple[KernelSignature, KernelConfig]]] = defaultdict(list)
    for key in keys:
        groups[key[0]].append(key)
    ordered = [groups[kind] for kind in sorted(groups, key=str)]
    found = []
    for turn in range(0, max(map(len, ordered)), 2):
        for group in ordered:
            found += group[turn : turn + 2]
    return found[:count]


def blackwell_cases() -> list[Case]:
    """Of the published times; see :func:`blackwell_model.published`."""
    found = []
    for point in published():
        asked = point.problem
        seen_us = asked.flops / point.tflops * 1e-6
        mask = "causal" if asked.causal else "dense"
        found.append(
            Case(
                kernel=point.kernel,
                problem=asked,
                config=point.config,
                sku=point.sku,
                seen_us=seen_us,
                clock_mhz=None,
                name=f"{point.sku} {asked}",
                group=f"{point.sku} {mask} head_dim {asked.head_dim}",
                fitted=False,
            )
        )
    return found


class Replays:
    """Tiles of many kernels for any constants, replayed by a few processes."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def errors(
        self, cases: Sequence[Case], values: Mapping[str, float], *, sass: bool = True
    ) -> Array:
        """Logarithms of predicted over seen times, with some constants at ``values``."""
        kernels = list(dict.fromkeys((case.kernel, case.sku) for case in cases))
        asked = [(kernel, load_sku(sku).arch.name, values, sass) for kernel, sku in kernels]
        tiles = dict(zip(kernels, self._pool.map(_tile, asked), strict=True))
        return np.array([case.error(tiles[case.kernel, case.sku]) for case in cases])


def _tile(asked: tuple[Kernel, str, Mapping[str, float], bool]) -> TileTiming:
    kernel, arch, values, sass = asked
    both = _loaded(kernel)
    timing = load_timing(load_arch(arch))
    return time_tile(both.sass if sass else both.ptx, changed(timing, values))


@lru_cache(maxsize=64)
def _loaded(kernel: Kernel) -> Traced:
    return traced(kernel)


def changed(timing: Timing, values: Mapping[str, float]) -> Timing:
    """A timing with some constants at other values."""
    fields: dict[str, Any] = dict(values)
    return replace(timing, **fields)


def fit(
    replays: Replays, cases: Sequence[Case], constants: Sequence[Constant], options: Namespace
) -> dict[str, float]:
    """The constants that come closest on ``cases``, within their bounds."""
    now = load_timing(load_sku(cases[0].sku).arch)
    low = np.array([c.low for c in constants])
    wide = np.array([c.high for c in constants]) - low
    start = np.array(options.start or [float(getattr(now, c.name)) for c in constants])

    def named(unit: Array) -> dict[str, float]:
        values = low + unit * wide
        return {c.name: float(v) for c, v in zip(constants, values, strict=True)}

    @cache_of_arrays
    def residuals(unit: Array) -> Array:
        found = replays.errors(cases, named(unit))
        text = " ".join(f"{value:.4g}" for value in named(unit).values())
        print(f"  {text}: rms {_rms(found):.4f}", flush=True)
        return found

    def slopes(unit: Array) -> Array:
        here = residuals(unit)
        columns = []
        for number in range(len(unit)):
            step = STEP if unit[number] < MIDDLE else -STEP
            there = unit.copy()
            there[number] += step
            columns.append((residuals(there) - here) / step)
        return np.stack(columns, axis=1)

    begin = np.clip((start - low) / wide, 0.02, 0.98)
    found = least_squares(
        residuals,
        begin,
        jac=slopes,
        bounds=(0.0, 1.0),
        max_nfev=options.at_most,
        loss="soft_l1",
        f_scale=0.05,
        ftol=2e-3,
        xtol=5e-3,
    )
    return named(found.x)


def cache_of_arrays(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """Remember what a function gave: the solver asks for the same place twice."""
    known: dict[bytes, Array] = {}

    def asked(unit: Array) -> Array:
        key = unit.tobytes()
        if key not in known:
            known[key] = function(unit)
        return known[key]

    return asked


def _rms(errors: Array) -> float:
    return float(np.sqrt(np.mean(errors**2)))


def table(replays: Replays, cases: Sequence[Case], values: Mapping[str, float]) -> Iterator[str]:
    """Errors on what was fitted and on what was not, by counts of the SASS and of the PTX."""
    yield "| set | pairs | kernels | counts | median error | largest | rms |"
    yield "|---|---:|---:|---|---:|---:|---:|"
    for title, chosen in _sets(cases):
        if not chosen:
            continue
        kernels = len({case.kernel for case in chosen})
        for counts in ("SASS", "PTX"):
            found = replays.errors(chosen, values, sass=counts == "SASS")
            errors = np.abs(np.expm1(found))
            yield (
                f"| {title} | {len(chosen)} | {kernels} | {counts} | {np.median(errors):.1%} | "
                f"{errors.max():.1%} | {_rms(found):.1%} |"
            )


def _sets(cases: Sequence[Case]) -> Iterator[tuple[str, list[Case]]]:
    yield "fitted", [case for case in cases if case.fitted]
    tested = [case for case in cases if not case.fitted]
    yield "tested", tested
    for group in sorted({case.group for case in tested}):
        yield f"tested: {group}", [case for case in tested if case.group == group]


def details(replays: Replays, cases: Sequence[Case], values: Mapping[str, float]) -> Iterator[str]:
    """A line for each pair."""
    yield "| pair | set | seen us | predicted us | error |"
    yield "|---|---|---:|---:|---:|"
    for case, error in zip(cases, replays.errors(cases, values), strict=True):
        predicted = case.seen_us * float(np.exp(error))
        which = "fitted" if case.fitted else "tested"
        yield (
            f"| {case.name} | {which} | {case.seen_us:.0f} | {predicted:.0f} | "
            f"{np.expm1(error):+.1%} |"
        )


def write(name: str, constants: Sequence[Constant], values: Mapping[str, float]) -> None:
    """Put the constants into the timing file, with where they are from."""
    path = TIMINGS / f"{FILES[name]}.toml"
    text = path.read_text(encoding="utf-8")
    today = datetime.now(UTC).date()
    source = (
        f"fitted by benchmarks/fit_trace_model.py {name}, {today}; docs/trace-model.md has its test"
    )
    for constant in constants:
        fact, value = constant.fact or constant.name, f"{values[constant.name]:.3g}"
        number = f"{float(value):g}"
        line = f'{fact} = {{ value = {number}, source = "{source}" }}'
        text, count = re.subn(rf"(?m)^{fact} = .*$", line, text)
        if count != 1:
            raise SystemExit(f"{path}: {fact} is there {count} times, not once")
    path.write_text(text, encoding="utf-8")


def main() -> int:
    """Fit, test, and print both."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("machine", choices=sorted(CONSTANTS))
    parser.add_argument("--kernels", type=int, default=24, help="Hopper: measured at every length")
    parser.add_argument("--others", type=int, default=12, help="Hopper: measured at one length")
    parser.add_argument("--at-most", type=int, default=6, help="steps of the fit; 0: test alone")
    parser.add_argument("--start", type=float, nargs="*", help="the fit; default: what is there")
    parser.add_argument("--details", action="store_true", help="a line for each pair")
    parser.add_argument("--write", action="store_true", help="into the timing file")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    hopper = options.machine == "hopper"
    cases = hopper_cases(options.kernels, options.others) if hopper else blackwell_cases()
    trace_all((case.kernel for case in cases), options.workers)
    constants = CONSTANTS[options.machine]
    context = get_context("spawn")
    # Nothing that a replay makes refers to itself, and what is kept is large.
    with ProcessPoolExecutor(options.workers, context, initializer=gc.disable) as pool:
        replays = Replays(pool)
        values: dict[str, float] = {}
        if options.at_most and constants:
            fitted = [case for case in cases if case.fitted]
            values = fit(replays, fitted, constants, options)
            print("\n| constant | bounds | fitted |\n|---|---|---:|")
            for each in constants:
                print(f"| {each.name} | {each.low:g} to {each.high:g} | {values[each.name]:.3g} |")
            print()
        for line in table(replays, cases, values):
            print(line, flush=True)
        if options.details:
            print()
            for line in details(replays, cases, values):
                print(line, flush=True)
    if options.write and values:
        write(options.machine, constants, values)
    return 0


if __name__ == "__main__":
    sys.exit(main())
