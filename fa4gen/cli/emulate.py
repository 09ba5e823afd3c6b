"""``fa4gen emulate``: is a kernel right, without a GPU?"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from fa4gen.cli.options import JsonOption, examples
from fa4gen.cli.output import EXIT_FAILED, emit, fail, say
from fa4gen.cli.problem_text import parse_problem
from fa4gen.core.config import Scheduler
from fa4gen.core.errors import ConfigError, UnknownName
from fa4gen.core.workspace import Workspace

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from fa4gen.emulator.emulate import Options
    from fa4gen.emulator.session import Report
    from fa4gen.emulator.trace import Timeline
    from fa4gen.report import emulation

_Found: TypeAlias = "tuple[Report, tuple[emulation.AccuracyView, ...]]"
DEFAULT_TARGET = "sm_90a"

KernelArgument = Annotated[
    Path, typer.Argument(metavar="KERNEL.py", help="A rendered kernel, or any CuTe-DSL module.")
]
ProblemOption = Annotated[
    str | None,
    typer.Option(
        "--problem", "-p", metavar="PROBLEM", help="Attention problem, as the tables print it."
    ),
]
CallOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME(ARGS)",
        help="Instead of --problem: a @cute.jit function of the module and what it is called with, "
        "such as 'gemm(f16:512x128, f16:64x128, f32:512x64=0, 1.5)'. TYPE:SHAPE is a random "
        "tensor, TYPE:SHAPE=X one full of X.",
    ),
]
PolicyOption = Annotated[
    list[str] | None,
    typer.Option(
        "--policy",
        metavar="eager|lazy|seed:N",
        help="When copies and MMAs complete; may be repeated. Default: all three kinds.",
    ),
]
TraceOption = Annotated[
    Path | None,
    typer.Option("--trace", metavar="FILE", help="Write a timeline for ui.perfetto.dev (JSON)."),
]
CoverageOption = Annotated[
    bool, typer.Option("--coverage", help="Show every opcode and the lines that never ran.")
]


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command(
        epilog=examples(
            "fa4gen render s256 h1 d128 causal -o kernel.py",
            "fa4gen emulate kernel.py --problem 's256 h1 d128 causal'",
            "fa4gen emulate kernel.py -p 's256 h1 d128 causal' --policy lazy --trace out.json",
            "fa4gen emulate copy.py --call 'copy(f32:64x64, f32:64x64=0)'",
        )
    )(emulate)


def emulate(
    kernel: KernelArgument,
    problem: ProblemOption = None,
    call: CallOption = None,
    policy: PolicyOption = None,
    trace: TraceOption = None,
    coverage: CoverageOption = False,
    as_json: JsonOption = False,
) -> None:
    """Execute a kernel's PTX on the CPU and say whether it is right: numbers, barriers, memory.

    The kernel runs once under each policy. With --problem its outputs are compared with float64.
    It is compiled for the architecture the file names, else for CUTE_DSL_ARCH, else for sm_90a.
    """
    from fa4gen.emulator.emulate import Options
    from fa4gen.emulator.session import POLICIES
    from fa4gen.emulator.trace import Timeline
    from fa4gen.report import emulation

    if (problem is None) == (call is None):
        raise ConfigError(
            "fa4gen emulate: got both or neither of --problem and --call, needed exactly one"
        )
    timeline = Timeline() if trace is not None else None
    options = Options() if timeline is None else Options(observer=timeline.observer())
    asked = _Request(kernel, _target_of(kernel), tuple(policy or POLICIES), options)
    start = perf_counter()
    report, accuracies = asked.attention(problem) if problem else asked.function(call or "")
    seconds = perf_counter() - start - asked.compile_seconds
    subject = f"{kernel.name} on {problem}" if problem else f"{kernel.name}, {call}"
    view = emulation.view_of((subject, asked.target), report, accuracies, seconds)
    emit(view, emulation.drawing(view, whole=coverage), as_json=as_json)
    if timeline is not None and trace is not None:
        _write(timeline, trace)
    if not view.ok:
        raise fail("the kernel is wrong; see above", EXIT_FAILED)


@dataclass(slots=True)
class _Request:
    """What was asked for, and how long compiling took of it."""

    kernel: Path
    target: str
    policies: tuple[str, ...]
    options: Options
    compile_seconds: float = 0.0

    def attention(self, words: str) -> _Found:
        """A rendered kernel on random Q, K and V."""
        from fa4gen.compile.emulation import compile_file
        from fa4gen.evaluate.emulated import Trial, emulate_attention
        from fa4gen.report import emulation

        asked = parse_problem(words.split())
        host = self._timed(lambda: compile_file(self.kernel, self.target))
        trial = Trial(asked)
        found = emulate_attention(
            host,
            trial,
            policies=self.policies,
            options=self.options,
            workspace=self._workspace(),
        )
        views = tuple(
            emulation.AccuracyView(a.name, a.max_error, a.allowed, a.ok) for a in found.accuracies
        )
        return found.report, views

    def _workspace(self) -> Workspace:
        """What the rendered file says that the kernel takes."""
        text = self.kernel.read_text(encoding="utf-8")
        num_splits = re.search(r"^NUM_SPLITS = (\d+)$", text, re.MULTILINE)
        scheduler = re.search(r'^SCHEDULER = "(\w+)"$', text, re.MULTILINE)
        return Workspace(
            num_splits=int(num_splits[1]) if num_splits else 1,
            tile_counter=scheduler is not None and scheduler[1] == Scheduler.DYNAMIC,
        )

    def function(self, call: str) -> _Found:
        """Any host function, for what it does besides its numbers."""
        from fa4gen.compile.driver import imported
        from fa4gen.compile.emulation import compile_function
        from fa4gen.emulator.session import run

        match = re.fullmatch(r"\s*(\w+)\s*\((.*)\)\s*", call)
        if match is None:
            raise ConfigError(f"--call: got {call!r}, allowed: NAME(ARGUMENT, ...)")
        name, inside = match.groups()
        specs = [spec.strip() for spec in inside.split(",") if spec.strip()]
        arguments = [_argument(spec, seed) for seed, spec in enumerate(specs)]
        with imported(self.kernel) as module:
            found = getattr(module, name, None)
            if found is None:
                raise UnknownName("function", name, [n for n in vars(module) if n[0] != "_"])
            host = self._timed(lambda: compile_function(found, *arguments, target=self.target))
        return run(host, *arguments, policies=self.policies, options=self.options), ()

    def _timed(self, work: Any) -> Any:
        start = perf_counter()
        result = work()
        self.compile_seconds = perf_counter() - start
        return result


def _target_of(kernel: Path) -> str:
    """The architecture that the text of a rendered kernel names, or the default."""
    text = kernel.read_text(encoding="utf-8")
    named = re.search(r"\bsm_(?:90a|100a|103a)\b", text)
    return named.group() if named else os.environ.get("CUTE_DSL_ARCH", DEFAULT_TARGET)


def _argument(spec: str, seed: int) -> Any:
    """An argument from ``f16:512x128``, ``f32:64=0``, ``5`` or ``1.5``.

    Raises:
        ConfigError: not of one of these forms.
    """
    import numpy as np

    from fa4gen.core.dtypes import DType
    from fa4gen.evaluate.emulated import NUMPY_DTYPES

    types: dict[str, Any] = {"f32": np.float32, "i32": np.int32, "i64": np.int64, "u8": np.uint8}
    types |= {"bf16": NUMPY_DTYPES[DType.BF16], "f16": NUMPY_DTYPES[DType.FP16]}
    name, colon, rest = spec.partition(":")
    sizes, _, fill = rest.partition("=")
    try:
        if not colon:
            return float(spec) if set(spec) & set(".e") else int(spec)
        shape = tuple(map(int, sizes.split("x")))
        return _tensor(shape, np.dtype(types[name]), fill, seed)
    except (KeyError, ValueError):
        raise ConfigError(
            f"--call: got the argument {spec!r}, allowed: a number, TYPE:SHAPE or TYPE:SHAPE=X "
            f"with TYPE one of {', '.join(sorted(types))} and SHAPE like 512x64"
        ) from None


def _tensor(shape: tuple[int, ...], dtype: np.dtype[Any], fill: str, seed: int) -> npt.NDArray[Any]:
    import numpy as np

    if fill:
        return np.full(shape, float(fill), dtype)
    rng = np.random.default_rng(seed)
    if dtype.kind in "iu":
        return rng.integers(0, 100, shape).astype(dtype)
    return rng.standard_normal(shape, np.float32).astype(dtype)


def _write(timeline: Timeline, path: Path) -> None:
    timeline.write(path)
    note = f"; {timeline.dropped} events left out" if timeline.dropped else ""
    say(f"timeline in {path}: open it at ui.perfetto.dev{note}")
