"""What the warps of fa4gen's Blackwell forward execute per KV block, beside FlashAttention-4's.

    python benchmarks/sm100_instructions.py [--only d128] [--csv FILE] [--markdown FILE]

Both are compiled here (extra ``peers``) and emulated on the same problems; no GPU takes part.
``docs/sm100-instructions.md`` is what ``--markdown`` writes.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from instruction_kinds import QUANTITIES, weights
from rich.console import Console
from rich.table import Table

from fa4gen.codegen import render
from fa4gen.compile import compile_kernel
from fa4gen.compile.emulation import host_of_artifact
from fa4gen.core.config import KernelConfig, KnobValue
from fa4gen.core.problem import AttentionProblem
from fa4gen.emulator.launch import CompiledHost
from fa4gen.emulator.session import run
from fa4gen.evaluate.correctness import Distribution
from fa4gen.evaluate.emulated import compare, make_inputs, poisoned_outputs
from fa4gen.feasibility import check
from fa4gen.hardware import load_arch
from fa4gen.numerics import max_relative_error
from fa4gen.space import space_for
from fa4gen.versions import installed

PEERS = Path(__file__).resolve().parents[1] / "tests" / "peers"
PACKAGES = ("nvidia-cutlass-dsl", "flash-attn-4", "numpy")
ARCH = "sm100"
POLICY = "eager"
WIDTH = 120
"""Of the tables where there is no terminal."""
NUM_SMS = 2
"""For our persistent kernel; there is one tile."""
KEYS = 128
"""Of a KV block, in both kernels."""
TILE_ROWS = 256
"""Query rows of a CTA, two Q tiles, in both kernels."""
GROWTH_LOG2 = 16
"""By which the scores of a block are above those of the block before it: twice the threshold."""
CALM = 0.25
"""On Q, so that no maximum grows past the threshold unless it is meant to."""

Rows: TypeAlias = list[list[str]]
"""A table, its header first; the first cell of that says what it is."""
Counts: TypeAlias = npt.NDArray[np.float64]
"""``(roles, quantities)``, or ``(warps, quantities)``."""

PHASES = ("block", "rescaled", "diagonal", "tile")
"""What is measured; a diagonal there is only under the causal mask."""

ROLES = {
    "softmax": range(8),
    "softmax 0": range(4),
    "softmax 1": range(4, 8),
    "correction": range(8, 12),
    "mma": range(12, 13),
    "store": range(13, 14),
    "load": range(14, 15),
    "scheduler": range(15, 16),
}
"""Warps of a CTA, those of the two Q tiles also apart; both kernels number them alike."""


@dataclass(frozen=True)
class Case:
    """A kernel of FlashAttention-4 and the knobs that make ours do the same."""

    name: str
    peer: str
    """Name in ``tests/peers/peer_suite.py``."""
    head_dim: int
    causal: bool = False
    cta_group: int = 1
    changes: Mapping[str, KnobValue] = field(default_factory=dict)
    """Against our default configuration."""

    def problem(self, keys: int) -> AttentionProblem:
        """One tile of queries for each CTA of one group, and so many keys."""
        return AttentionProblem.from_dict(
            {
                "batch": 1,
                "num_heads_q": 1,
                "seqlen_q": TILE_ROWS * self.cta_group,
                "seqlen_k": keys,
                "head_dim": self.head_dim,
                "causal": self.causal,
            }
        )

    @property
    def config(self) -> KernelConfig:
        """Ours."""
        signature, arch = self.problem(KEYS).signature, load_arch(ARCH)
        config = space_for(ARCH).default(signature).vary(self.changes)
        if not (verdict := check(signature, config, arch)):
            raise SystemExit(f"{self.name}: {verdict}")
        return config


# FlashAttention-4's constants at 0251105: what its tuned table lacks has polynomials 16/4 from
# fragment 1 and registers 192/80/48; without a mask its tiles are persistent.
CASES = (
    Case("d64 dense", "fa4-sm100-d64-dense", 64, changes={"scheduler": "persistent"}),
    Case("d64 causal", "fa4-sm100-d64-causal", 64, causal=True),
    Case(
        "d128 dense",
        "fa4-sm100-d128-dense",
        128,
        changes={
            "cta_group": 1,
            "num_kv_stages": 3,
            "exp2_poly_fraction": 0.125,
            "exp2_poly_frequency": 16,
            "regs_softmax": 192,
            "regs_correction": 80,
            "regs_other": 48,
        },
    ),
    Case("d128 causal", "fa4-sm100-d128-causal", 128, causal=True),
    Case("d128 dense 2-CTA", "fa4-sm100-d128-2cta", 128, cta_group=2),
)


@dataclass(frozen=True)
class Side:
    """A compiled kernel."""

    name: str
    host: CompiledHost
    arguments: Callable[[Mapping[str, Any]], Sequence[Any]]
    """From the tensors of a problem to the arguments of the host function."""


@dataclass(frozen=True)
class Result:
    """The counts of one case: by phase, ours and FlashAttention-4's."""

    case: Case
    phases: Mapping[str, tuple[Counts, Counts]]

    def of(self, phase: str, role: str, quantity: str) -> tuple[float, float]:
        """Ours and FlashAttention-4's."""
        at = list(ROLES).index(role), list(QUANTITIES).index(quantity)
        ours, theirs = self.phases[phase]
        return float(ours[at]), float(theirs[at])


def measure(case: Case, phases: Sequence[str] = PHASES) -> Result:
    """Compile both kernels and emulate them as often as ``phases`` take.

    Raises:
        SystemExit: one of them is wrong.
    """
    ours, theirs = (phases_of(case, side, phases) for side in (ours_of(case), theirs_of(case)))
    return Result(case, {phase: (ours[phase], theirs[phase]) for phase in ours})


def ours_of(case: Case) -> Side:
    """fa4gen's kernel."""
    arch = load_arch(ARCH)
    artifact = compile_kernel(render(case.problem(KEYS).signature, case.config, arch))
    scale = float(case.head_dim) ** -0.5
    return Side(
        "fa4gen",
        host_of_artifact(artifact, arch.target),
        lambda t: (t["q"], t["k"], t["v"], t["out"], t["lse"], scale, NUM_SMS),
    )


def theirs_of(case: Case) -> Side:
    """FlashAttention-4's kernel, from the folder where the tests keep it or compiled now."""
    if str(PEERS) not in sys.path:
        sys.path.insert(0, str(PEERS))
    request = importlib.import_module("peer_suite").FA4[case.peer]
    kernel = importlib.import_module("peer_kernels").compile_peer(request)
    return Side("FlashAttention-4", kernel.host(), kernel.bind)


def phases_of(case: Case, side: Side, wanted: Sequence[str]) -> dict[str, Counts]:
    """Counts of a block of each kind, as differences of lengths, and of a tile of one block."""

    @cache
    def counts(blocks: int, growing: bool = False) -> Counts:
        return emulate(case, side, case.problem(blocks * KEYS), growing)

    # Under the mask the last two blocks of the keys are on the diagonal of one of the Q tiles.
    least = 4 if case.causal else 2
    makers: dict[str, Callable[[], Counts]] = {
        "block": lambda: (counts(least + 2) - counts(least)) / 2,
        "rescaled": lambda: (counts(least + 2, True) - counts(least, True)) / 2,
        "tile": lambda: counts(1),
    }
    if case.causal:
        makers["diagonal"] = lambda: counts(2) - counts(1)
    return {phase: makers[phase]() for phase in wanted if phase in makers}


def emulate(case: Case, side: Side, problem: AttentionProblem, growing: bool) -> Counts:
    """Counts of one run for each role: means over its warps and the CTAs.

    Raises:
        SystemExit: the kernel is wrong.
    """
    q, k, v = make_inputs(problem, Distribution.NORMAL, seed=0)
    scale = float(problem.head_dim) ** -0.5
    q *= CALM
    if growing:
        # Blocks are taken from the last to the first. The rest of the scores is a few units.
        q[..., 0] = GROWTH_LOG2 * np.log(2.0) / scale
        k[..., 0] = -(np.arange(problem.seqlen_k) // KEYS)[None, :, None]
    out, lse = poisoned_outputs(problem)
    tensors = {"q": q, "k": k, "v": v, "out": out, "lse": lse}
    report = run(side.host, *side.arguments(tensors), policies=(POLICY,))
    for finding in report.findings:
        raise SystemExit(f"{case.name}, {side.name}, {problem}: {finding}")
    for accuracy in compare(problem, (q, k, v), (out, lse), scale, max_relative_error(3)):
        if not accuracy.ok:
            raise SystemExit(f"{case.name}, {side.name}, {problem}: {accuracy}")
    (launch,) = report.runs[0].launches
    if int(np.prod(launch.shape.grid)) != case.cta_group:
        raise SystemExit(f"{case.name}, {side.name}: got a grid of {launch.shape.grid} CTAs")
    warps = launch.warp_counts @ weights(launch.program) / case.cta_group
    return np.array([warps[role].mean(axis=0) for role in ROLES.values()])


COLUMNS = {
    "softmax": ("softmax", "block"),
    "softmax, diagonal": ("softmax 0", "diagonal"),
    "softmax, behind it": ("softmax 1", "diagonal"),
    "correction": ("correction", "block"),
    "correction, rescaled": ("correction", "rescaled"),
    "mma": ("mma", "block"),
    "load": ("load", "block"),
}
"""Role and phase; what the tables leave out is in the CSV file."""


def cells(pair: tuple[float, float]) -> str:
    """Ours and FlashAttention-4's; one number where they are equal."""
    ours, theirs = (f"{round(value, 2):g}" for value in pair)
    return ours if ours == theirs else f"{ours} / {theirs}"


def table_of(result: Result) -> Rows:
    """For one case; a row is a quantity that is not 0 everywhere."""
    columns = {title: at for title, at in COLUMNS.items() if at[1] in result.phases}
    rows = [[result.case.name, *columns]]
    for quantity, title in QUANTITIES.items():
        pairs = [result.of(phase, role, quantity) for role, phase in columns.values()]
        if any(any(pair) for pair in pairs):
            rows.append([title, *(cells(pair) for pair in pairs)])
    return rows


def tile_table(results: Sequence[Result]) -> Rows:
    """What a tile of a single block executes, for each case."""
    roles = ("softmax", "correction", "mma", "store", "load")
    rows = [
        [each.case.name, *(cells(each.of("tile", role, "kept")) for role in roles)]
        for each in results
    ]
    return [["a tile of one block, without folded", *roles], *rows]


def tables_of(results: Sequence[Result]) -> Iterator[Rows]:
    """All tables."""
    yield from map(table_of, results)
    yield tile_table(results)


def show(results: Sequence[Result]) -> None:
    """Print the tables."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    for header, *rows in tables_of(results):
        table = Table(title=f"{header[0]}: fa4gen / FlashAttention-4", title_justify="left")
        table.add_column("")
        for title in header[1:]:
            table.add_column(title, justify="right")
        for row in rows:
            table.add_row(*row)
        console.print(table)


def write_csv(path: Path, results: Sequence[Result]) -> None:
    """One row for each case, phase, role and kernel."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["case", "phase", "role", "kernel", *QUANTITIES])
        for each in results:
            for phase, sides in each.phases.items():
                for at, role in enumerate(ROLES):
                    for kernel, counts in zip(("fa4gen", "fa4"), sides, strict=True):
                        values = (f"{value:g}" for value in counts[at])
                        writer.writerow([each.case.name, phase, role, kernel, *values])


DOCUMENT = """\
# Instructions of the Blackwell kernels

What the warps of fa4gen's forward for sm_100a execute per KV block, beside FlashAttention-4's own
kernels. Both are compiled without a GPU and emulated on the same problems.
{date}, {versions}.

```console
$ python benchmarks/sm100_instructions.py --csv counts.csv --markdown docs/sm100-instructions.md
```

How to read it: fa4gen / FlashAttention-4, one number where both are equal. Numbers are warp
instructions of one warp for one KV block of {keys} keys: the difference of two runs that differ by
some blocks, as a mean over the warps of the role and, with 2 CTAs, over both (one of them issues
all MMAs). A softmax warp has 32 rows of one Q tile, a correction warp 32 of each of the two.

- *softmax*, *correction*, *mma*, *load*: every key is visible, and no maximum grows past the
  threshold, so O stays as it is. *rescaled*: every maximum grows by {growth} in log2, O follows.
- *diagonal*: the causal diagonal of the Q tile crosses the block. *behind it*: the same block for
  the second Q tile, which sees all of it; only FlashAttention-4 masks it there.
- *without folded*, and all rows below it, leave out what ptxas folds away: moves from register to
  register and in and out of pairs, constants added to addresses of `tcgen05.ld` and `.st`,
  predicates turned round for guards.
- *FMA pipe*: float32 `fma`, `mul`, `add`, `sub`, *two-wide* in `f32x2`. *ALU*: integers, logic,
  comparisons, `max`, constants. *mbarriers*: arrivals, waits, `tcgen05.commit`. *TMA*: with commits
  and waits. *other*: branches, votes, elections, warp barriers, `tcgen05.wait`, parameters.

Ours has the threshold (8), the scheduler, the registers, and the share, place and degree of the
polynomials of the FlashAttention-4 kernel beside it; the rest is our default.

Not shown: what ptxas makes of it (it fuses, moves and adds, and may put an integer addition on
either pipe), and time: a wait counts once, however long, and equal counts are not equal speed.
Every run's O and LSE were compared with float64.

{tables}
"""


def document(results: Sequence[Result]) -> str:
    """The page of the documentation."""
    found = []
    for header, *rows in tables_of(results):
        lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
        found.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    versions = [f"{name} {installed(name)}" for name in PACKAGES]
    return DOCUMENT.format(
        date=datetime.now(UTC).date(),
        versions=", ".join([f"Python {platform.python_version()}", *versions]),
        keys=KEYS,
        growth=GROWTH_LOG2,
        tables="\n\n".join(found),
    )


def main() -> int:
    """Measure what is asked for, print it and write it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="", help="part of the names of the cases to measure")
    parser.add_argument("--csv", type=Path, help="all counts")
    parser.add_argument("--markdown", type=Path, help="the page of the documentation")
    chosen = parser.parse_args()
    cases = [case for case in CASES if chosen.only in case.name]
    if not cases:
        parser.error(f"--only: got {chosen.only!r}, allowed: {', '.join(c.name for c in CASES)}")
    results = [measure(case) for case in cases]
    show(results)
    if chosen.csv:
        write_csv(chosen.csv, results)
    if chosen.markdown:
        chosen.markdown.write_text(document(results), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
