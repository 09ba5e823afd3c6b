"""Run CUTLASS's CuTe-DSL examples on the emulator, each with its own check, and make a table.

    python benchmarks/emulate_examples.py --cutlass PATH [--only REGEX] [--jobs N] [--out FOLDER]

PATH is a checkout of CUTLASS, or its folder ``examples/python/CuTeDSL``. Every script runs in a
process of its own (see :mod:`pretended_gpu`): all of ``experimental/primitives`` for sm_90a and
sm_100a (those in ``tcgen05`` for sm_100a alone), then GEMMs, attention, norms and tutorials with
small problems. FOLDER gets the table as ``table.md``, and for each run what it printed and what
came of it; if it is there from an earlier run, ``--only`` renews a part.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

CHILD = Path(__file__).resolve().with_name("pretended_gpu.py")
EXAMPLES = Path("examples/python/CuTeDSL")
PRIMITIVES = "experimental/primitives"
POLICIES = "eager,lazy,seed:0"
TIMEOUT_S = 900.0
LONGEST_CELL = 100

KERNELS = """
sm_90a ampere/kernel/elementwise/elementwise_add.py --M 64 --N 256
sm_90a ampere/kernel/elementwise/elementwise_apply.py --M 64 --N 256
sm_90a ampere/kernel/dense_gemm/sgemm.py --mnk 128,128,32
sm_90a ampere/kernel/dense_gemm/tensorop_gemm.py --mnkl 128,128,64,1
sm_90a ampere/kernel/attention/flash_attention_v2.py --batch_size 1 --seqlen_q 128 --seqlen_k 128 --num_head 1 --is_causal
sm_90a hopper/kernel/dense_gemm/dense_gemm.py --mnkl 256,256,256,1 --tile_shape_mn 128,128 --cluster_shape_mn 1,1
sm_90a hopper/kernel/dense_gemm/dense_gemm.py --mnkl 256,256,256,1 --tile_shape_mn 128,128 --cluster_shape_mn 2,1
sm_90a hopper/kernel/dense_gemm/dense_gemm_persistent.py --mnkl 256,256,256,1 --tile_shape_mn 128,128 --cluster_shape_mn 1,1
sm_90a hopper/kernel/dense_gemm/dense_gemm_fp8_2xacc.py --mnkl 128,128,256,1 --tile_shape_mn 128,128 --cluster_shape_mn 1,1
sm_90a hopper/kernel/grouped_gemm/grouped_gemm.py --num_groups 2 --problem_sizes_mnkl (128,128,128,1),(128,256,64,1) --tile_shape_mn 128,128 --cluster_shape_mn 1,1
sm_90a hopper/kernel/cta_norm/cta_norm.py --M 4 --N 1024
sm_90a hopper/kernel/attention/fmha.py --q_shape 1,256,1,64 --k_shape 1,256,1,64
sm_90a hopper/kernel/attention/fmha.py --q_shape 1,256,2,128 --k_shape 1,256,1,128 --is_causal --mma_tile_shape_mn 64,128
sm_100a blackwell/kernel/dense_gemm/dense_gemm.py --ab_dtype Float16 --c_dtype Float16 --mnkl 256,256,256,1 --mma_tiler_mn 128,128 --cluster_shape_mn 1,1 --use_tma_store
sm_100a blackwell/kernel/dense_gemm/dense_gemm.py --ab_dtype Float16 --c_dtype Float16 --mnkl 512,256,256,1 --mma_tiler_mn 256,128 --cluster_shape_mn 2,1 --use_2cta_instrs --use_tma_store
sm_100a blackwell/kernel/dense_gemm/dense_gemm_software_pipeline.py --ab_dtype Float16 --c_dtype Float16 --mnkl 256,256,256,1 --mma_tiler_mn 128,128 --cluster_shape_mn 1,1 --use_tma_store
sm_100a blackwell/kernel/dense_gemm/dense_gemm_persistent.py --ab_dtype Float16 --c_dtype Float16 --mnkl 256,256,256,1 --mma_tiler_mn 128,128 --cluster_shape_mn 1,1 --use_tma_store
sm_100a blackwell/kernel/dense_gemm/dense_gemm_persistent.py --ab_dtype Float16 --c_dtype Float16 --mnkl 512,256,256,1 --mma_tiler_mn 256,128 --cluster_shape_mn 2,1 --use_2cta_instrs --use_tma_store
sm_100a blackwell/kernel/dense_gemm/dense_gemm_persistent.py --ab_dtype Float8E4M3FN --c_dtype Float16 --mnkl 512,256,256,1 --mma_tiler_mn 256,128 --cluster_shape_mn 2,1 --use_2cta_instrs --use_tma_store
sm_100a blackwell/kernel/dense_gemm/dense_gemm_persistent_dynamic.py --ab_dtype Float16 --c_dtype Float16 --mnkl 512,256,256,1 --mma_tiler_mn 256,128 --cluster_shape_mn 2,1 --use_2cta_instrs --use_tma_store
sm_100a blackwell/kernel/dense_gemm/dense_gemm_alpha_beta_persistent.py --mnkl 256,128,128,1 --mma_tiler_mn 128,128 --cluster_shape_mn 1,1
sm_100a blackwell/kernel/blockscaled_gemm/dense_blockscaled_gemm_persistent.py --a_dtype Float4E2M1FN --b_dtype Float4E2M1FN --sf_dtype Float8E4M3FN --sf_vec_size 16 --c_dtype Float16 --mnkl 256,256,256,1 --mma_tiler_mn 128,128 --cluster_shape_mn 1,1
sm_100a blackwell/kernel/blockscaled_gemm/dense_blockscaled_gemm_persistent.py --a_dtype Float8E4M3FN --b_dtype Float8E5M2 --sf_dtype Float8E8M0FNU --sf_vec_size 32 --c_dtype BFloat16 --mnkl 256,256,256,1 --mma_tiler_mn 256,128 --cluster_shape_mn 2,1
sm_100a blackwell/kernel/blockwise_gemm/blockwise_gemm.py --mnkl 256,256,256,1 --mma_tiler_mn 128,128 --cluster_shape_mn 1,1
sm_100a blackwell/kernel/grouped_gemm/grouped_gemm.py --num_groups 2 --problem_sizes_mnkl (128,128,128,1),(128,256,64,1) --mma_tiler_mn 128,128 --cluster_shape_mn 1,1
sm_100a blackwell/kernel/mixed_input_gemm/mixed_input_gemm.py --mnkl 256,128,128,1 --mma_tiler_mnk 128,128,64 --cluster_shape_mn 1,1 --use_tma_store
sm_100a blackwell/kernel/rmsnorm/rmsnorm.py --M 4 --N 1024
sm_100a blackwell/kernel/attention/fmha/fmha.py --q_shape 1,256,1,64 --k_shape 1,256,1,64
sm_100a blackwell/kernel/attention/fmha/fmha.py --q_shape 1,256,2,128 --k_shape 1,256,1,128 --is_causal
sm_100a blackwell/kernel/attention/fmha/fmha.py --q_shape 1,256,2,128 --k_shape 1,256,2,128 --is_persistent
sm_100a blackwell/kernel/attention/fmha/fmha_bwd.py --b 1 --h_q 1 --h_k 1 --s_q 128 --s_k 128 --d 64
sm_100a blackwell/kernel/attention/mla/mla_decode_fp16.py --batch_size 1 --seq_len_k 128 --page_size 128 --split_kv 1
sm_100a blackwell/tutorial/tutorial_gemm/fp16_gemm_0.py --mnk 256,256,256
sm_100a blackwell/tutorial/tutorial_gemm/fp16_gemm_1.py --mnk 512,256,256
sm_100a blackwell/tutorial/tutorial_gemm/fp16_gemm_2.py --mnk 512,256,256
sm_100a blackwell/tutorial/tutorial_gemm/fp16_gemm_3.py --mnk 512,256,256
sm_100a blackwell/tutorial/tutorial_gemm/fp16_gemm_3_1.py --mnk 512,256,256
sm_100a blackwell/tutorial/tutorial_gemm/fp16_gemm_4.py --mnk 512,256,256
sm_100a blackwell/tutorial/tutorial_gemm/fp16_gemm_5.py --mnk 512,256,256
sm_100a blackwell/tutorial/tutorial_gemm/fp16_gemm_6.py --mnk 512,256,256
sm_100a blackwell/tutorial/tutorial_gemm/nvfp4_gemm_0.py --mnkl 256,256,256,1
sm_100a blackwell/tutorial/tutorial_tma/tma_v0.py
sm_100a blackwell/tutorial/tutorial_tma/tma_v1.py
sm_100a blackwell/tutorial/tutorial_tma/tma_v2.py
"""  # noqa: E501 - a command a line
"""Target, script below ``cute``, and arguments."""

SHRUNK = {
    f"{PRIMITIVES}/tutorial/02_naive_gemm.py": ("1024, 1024", "64, 64"),
    f"{PRIMITIVES}/tutorial/03_gemm_tiled_smem.py": ("sz = 1024", "sz = 64"),
}
"""Scripts whose problem is a literal and too large, with its replacement: a copy is run."""


@dataclass(frozen=True)
class Example:
    """One run of a script."""

    target: str
    script: str
    """Below the examples' folder."""
    arguments: str = ""

    @property
    def name(self) -> str:
        """For files."""
        words = re.sub(r"[^\w]+", "_", f"{self.script.removesuffix('.py')} {self.arguments}")
        return f"{words.strip('_')}.{self.target}"

    @property
    def label(self) -> str:
        """For people, and for ``--only``."""
        return f"{self.script} {self.arguments}".strip() + f" [{self.target}]"

    def path(self, root: Path, out: Path) -> Path:
        """The script, or a copy of it with a smaller problem."""
        original = root / self.script
        if self.script not in SHRUNK:
            return original
        large, small = SHRUNK[self.script]
        text = original.read_text(encoding="utf-8")
        if large not in text:
            raise SystemExit(f"{original}: got no {large!r} to make smaller")
        copy = out / f"small_{original.name}"
        copy.write_text(text.replace(large, small), encoding="utf-8")
        return copy


def examples_in(root: Path) -> Iterator[Example]:
    """Everything that is run."""
    for path in sorted((root / PRIMITIVES).rglob("*.py")):
        script = path.relative_to(root).as_posix()
        for target in ("sm_90a", "sm_100a"):
            if target == "sm_100a" or "/tcgen05/" not in script:
                yield Example(target, script)
    for line in KERNELS.strip().splitlines():
        target, script, *arguments = line.split()
        yield Example(target, f"cute/{script}", " ".join(arguments))


def emulate(example: Example, root: Path, out: Path, policies: str) -> dict[str, Any]:
    """Run an example in a process of its own; what came of it, also left in a file."""
    result = out / f"{example.name}.json"
    result.unlink(missing_ok=True)
    script = example.path(root, out)
    command = [sys.executable, str(CHILD), example.target, str(result), policies, str(script)]
    command += example.arguments.split()
    path = os.pathsep.join((str(root), str((root / example.script).parent)))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    start, end = perf_counter(), "no result"
    with (out / f"{example.name}.log").open("w", encoding="utf-8") as log:
        try:
            subprocess.run(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=out,
                timeout=TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            end = f"not over after {TIMEOUT_S:.0f} s"
    if not result.exists():
        broken = {"kind": "Crashed", "end": end, "compared": 0, "calls": [], "trace": ""}
        broken["seconds"] = perf_counter() - start
        result.write_text(json.dumps(broken), encoding="utf-8")
    return _load(result)


def verdict(outcome: dict[str, Any]) -> str:
    """What came of an example, in a few words; the first is one of a fixed set."""
    findings = [found for call in outcome["calls"] for found in call["findings"]]
    kind, end = outcome["kind"], outcome["end"]
    if kind == "passed":
        return f"passed with notes: {_kinds(findings)}" if findings else "passed"
    if "libNVVM" in outcome["trace"] or "nvvm" in kind.lower():
        return "not for this target: libNVVM refuses"
    if "_scaled_mm" in outcome["trace"]:
        return "no reference: torch multiplies NVFP4 on a GPU only"
    if kind == "AssertionError" and findings:
        return f"wrong under some orders: {_kinds(findings)}"
    if kind == "CaptureFailed":
        return f"not called: {_short(end)}"
    return f"stopped: {kind}: {_short(end)}"


def table(rows: Sequence[tuple[Example, dict[str, Any]]]) -> str:
    """The results as Markdown: how many of each sort, then a line for each script and its options.

    A column has ``-`` where a script is not run for that target.
    """
    told = {example: verdict(outcome) for example, outcome in rows}
    sorts = Counter(text.partition(":")[0] for text in told.values())
    lines = [
        f"{len(rows)} runs: {', '.join(f'{n} {sort}' for sort, n in sorts.most_common())}.",
        "",
    ]
    lines += ["| example | sm_90a | sm_100a |", "|---|---|---|"]
    for script, arguments in dict.fromkeys((each.script, each.arguments) for each in told):
        cells = (told.get(Example(t, script, arguments), "-") for t in ("sm_90a", "sm_100a"))
        name = f"{script.removesuffix('.py')} {arguments}".strip()
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run what is asked for and print the table of all that has run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cutlass", type=Path, required=True, help="a checkout of CUTLASS")
    parser.add_argument("--only", default="", help="regular expression: script, arguments, target")
    parser.add_argument("--out", type=Path, default=Path("emulated-examples"))
    parser.add_argument("--jobs", type=int, default=1, help="processes at once")
    parser.add_argument("--policies", default=POLICIES, help="orders of events that are tried")
    chosen = parser.parse_args()
    root: Path = chosen.cutlass.resolve()
    root = root / EXAMPLES if (root / EXAMPLES).is_dir() else root
    if not (root / PRIMITIVES).is_dir():
        parser.error(f"{root}: got no folder {PRIMITIVES} in it, wanted a checkout of CUTLASS")
    out: Path = chosen.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    every = list(examples_in(root))
    wanted = [example for example in every if re.search(chosen.only, example.label)]

    def one(example: Example) -> None:
        outcome = emulate(example, root, out, chosen.policies)
        print(f"{outcome['seconds']:6.1f} s  {example.label}: {verdict(outcome)}", flush=True)

    with ThreadPoolExecutor(chosen.jobs) as pool:
        list(pool.map(one, wanted))
    results = [(example, out / f"{example.name}.json") for example in every]
    rows = [(example, _load(path)) for example, path in results if path.exists()]
    (out / "table.md").write_text(table(rows), encoding="utf-8")
    print(f"\n{out / 'table.md'}")
    return 0


def _load(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def _kinds(findings: Sequence[str]) -> str:
    """How many findings there are of each kind."""
    counts = Counter(found.partition(":")[0] for found in findings)
    return ", ".join(f"{count} {kind}" for kind, count in counts.most_common())


def _short(text: str) -> str:
    line = text.strip().partition("\n")[0].replace("|", "\\|")
    return line if len(line) <= LONGEST_CELL else f"{line[: LONGEST_CELL - 3]}..."


if __name__ == "__main__":
    sys.exit(main())
