"""Kernels recorded for the trace-driven model, kept in a folder: a replay is all that is left.

For ``fit_trace_model.py``, ``sweep_model.py`` and ``blackwell_model.py``.
"""

from __future__ import annotations

import hashlib
import importlib
import pickle
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import fa4gen.perf.trace as package
from fa4gen.codegen import render
from fa4gen.compile import artifact_key, compile_kernel, default_cache_dir
from fa4gen.compile.cubin import embedded_cubin
from fa4gen.core.config import KernelConfig
from fa4gen.core.problem import AttentionProblem, KernelSignature
from fa4gen.core.workspace import Workspace
from fa4gen.emulator.decode import Program
from fa4gen.evaluate.correctness import Distribution
from fa4gen.evaluate.emulated import make_inputs, poisoned_outputs
from fa4gen.evaluate.traced import recorder
from fa4gen.hardware import Arch, load_arch
from fa4gen.perf.trace import (
    MachineCode,
    Record,
    Tape,
    TileTapes,
    machine_code_of,
    record,
    trace_tiles,
)

TELL = 10
"""Kernels from one line of progress to the next."""
PEERS = Path(__file__).resolve().parents[1] / "tests" / "peers"


@dataclass(frozen=True)
class Traced:
    """One kernel, with the counts of its PTX and with those of its SASS."""

    ptx: TileTapes
    sass: TileTapes


@dataclass(frozen=True)
class Ours:
    """A kernel of our templates."""

    signature: KernelSignature
    config: KernelConfig
    arch: str

    def key(self) -> str:
        """What the recording depends on, besides the sources of the model."""
        made = render(self.signature, self.config, load_arch(self.arch))
        return artifact_key(made)

    def trace(self) -> Traced:
        """Compile and record it."""
        arch = load_arch(self.arch)
        artifact = compile_kernel(render(self.signature, self.config, arch))
        cubin = embedded_cubin(artifact.object_path.read_bytes())
        record = recorder(artifact, arch, workspace=Workspace.of(self.config))
        return _both(record, self.signature, self.config, arch, cubin)


@dataclass(frozen=True)
class Theirs:
    """A kernel of FlashAttention-4 for Blackwell."""

    signature: KernelSignature
    config: KernelConfig
    """Of ours, with the same tiles and order."""
    arch: str

    def key(self) -> str:
        """What the recording depends on, besides the sources of the model."""
        return f"FlashAttention-4 {version()} {self}"

    def trace(self) -> Traced:
        """Compile and record it."""
        arch = load_arch(self.arch)
        kernel = self._compiled(arch.target)

        def run(asked: AttentionProblem, num_sms: int) -> list[Tape]:
            assert num_sms == self.config.cta_group  # what it was compiled for
            q, k, v = make_inputs(asked, Distribution.NORMAL, seed=0)
            out, lse = poisoned_outputs(asked)
            tensors = {"q": q, "k": k, "v": v, "out": out, "lse": lse}
            return record(kernel.host(), *kernel.bind(tensors))

        return _both(run, self.signature, self.config, arch, kernel.cubin)

    def _compiled(self, target: str) -> Any:
        group = self.config.cta_group
        asked = AttentionProblem(
            batch=1,
            seqlen_q=256 * group,
            seqlen_k=256 * group,
            num_heads_q=1,
            num_heads_kv=1,
            head_dim=self.signature.head_dim,
            head_dim_v=self.signature.head_dim_v,
            dtype=self.signature.dtype,
            causal=self.signature.causal,
        )
        fa4, kernels = _peers()
        # Narrower heads have no kernel for two CTAs, and are asked for one with as many rows.
        request = fa4.forward_request(asked, target, cta_group=group, num_sms=group)
        return kernels.compile_peer(request)


Kernel = Ours | Theirs


@cache
def _peers() -> tuple[Any, Any]:
    sys.path.insert(0, str(PEERS))
    fa4, kernels = (importlib.import_module(n) for n in ("flash_attention_4", "peer_kernels"))
    return fa4, kernels


@cache
def version() -> str:
    """Of FlashAttention-4, as it is installed."""
    from importlib.metadata import version as installed

    return installed("flash-attn-4")


def _both(
    run: Record, signature: KernelSignature, config: KernelConfig, arch: Arch, cubin: bytes
) -> Traced:
    """Record once, count twice."""
    taped: dict[tuple[AttentionProblem, int], list[Tape]] = {}

    def once(problem: AttentionProblem, num_sms: int) -> list[Tape]:
        key = problem, num_sms
        if key not in taped:
            taped[key] = run(problem, num_sms)
        return taped[key]

    def read(program: Program) -> MachineCode:
        return machine_code_of(cubin, program)

    by_ptx = trace_tiles(once, signature, config, arch)
    return Traced(by_ptx, trace_tiles(once, signature, config, arch, read))


_MAKING = (
    *("dataflow", "folding", "kinds", "machine_code", "order", "refine", "sass", "tape", "tile"),
)
"""Modules of the model that a recording depends on."""


@cache
def _sources() -> str:
    """Identity of the code that makes a recording."""
    digest = hashlib.sha256()
    folder = Path(package.__file__).parent
    for name in _MAKING:
        digest.update((folder / f"{name}.py").read_bytes())
    return digest.hexdigest()


def _path(kernel: Kernel, folder: Path | None = None) -> Path:
    name = hashlib.sha256(f"{kernel.key()} {_sources()}".encode()).hexdigest()[:32]
    return (folder or default_cache_dir() / "traces") / f"{name}.pickle"


def traced(kernel: Kernel, folder: Path | None = None) -> Traced:
    """The recording of a kernel, from the folder if it is there.

    Args:
        kernel: Which.
        folder: Of recordings; by default in the cache of compiled kernels.
    """
    path = _path(kernel, folder)
    if path.is_file():
        found: Traced = pickle.loads(path.read_bytes())
        return found
    made = kernel.trace()
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".new")
    scratch.write_bytes(pickle.dumps(made))
    scratch.replace(path)
    return made


def trace_all(
    kernels: Iterable[Kernel], workers: int = 2, tell: Callable[[str], None] = print
) -> None:
    """Record what is not in the folder yet, side by side."""
    missing = [kernel for kernel in dict.fromkeys(kernels) if not _path(kernel).is_file()]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for number, _ in enumerate(pool.map(_record, missing), start=1):
            if number % TELL == 0 or number == len(missing):
                tell(f"{number} of {len(missing)} kernels recorded")


def _record(kernel: Kernel) -> None:
    traced(kernel)
