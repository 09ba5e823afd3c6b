"""Kernels compiled per minute: one process against a pool.

    python benchmarks/compile_speed.py [--sku b200] [--variants 12] [--workers 2]

Random variants of one kernel, each compiled anew. The first kernel of every process is left out:
it pays for importing CuTe-DSL.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
from pathlib import Path
from time import perf_counter

from fa4gen.codegen import GeneratedKernel, render
from fa4gen.compile import ArtifactCache, CompilePool
from fa4gen.core.dtypes import DType
from fa4gen.core.problem import KernelSignature
from fa4gen.hardware import load_sku
from fa4gen.space import space_for


def main() -> None:
    """Compile the same variants both ways and print the rates."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sku", default="b200")
    parser.add_argument("--variants", type=int, default=12)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    arch = load_sku(options.sku).arch
    rng, space = random.Random(1), space_for(arch.name)
    signature = KernelSignature(DType.BF16, 128, 128, causal=True, qhead_per_kvhead=1)
    configs = [space.sample(rng, signature, arch) for _ in range(options.variants)]
    kernels = [render(signature, config, arch) for config in configs]
    warm = [
        render(signature, space.sample(rng, signature, arch), arch) for _ in range(options.workers)
    ]
    rates = {}
    for workers in (1, options.workers):
        seconds, each = _compile(kernels, warm[:workers], workers)
        rates[workers] = 60 * len(kernels) / seconds
        print(
            f"{workers} worker{'s' if workers > 1 else ''}: {rates[workers]:.1f} kernels a minute; "
            f"a kernel takes {statistics.median(each):.2f} s ({min(each):.2f} to {max(each):.2f})"
        )
    print(f"{rates[options.workers] / rates[1]:.2f} times as many with {options.workers}")


def _compile(
    kernels: list[GeneratedKernel], warm: list[GeneratedKernel], workers: int
) -> tuple[float, list[float]]:
    """Seconds for all kernels, and of each."""
    with tempfile.TemporaryDirectory() as folder:
        pool = CompilePool(workers=workers, cache=ArtifactCache(Path(folder)))
        try:
            for future in [pool.submit(kernel) for kernel in warm]:
                future.result()
            start = perf_counter()
            built = [future.result() for future in [pool.submit(kernel) for kernel in kernels]]
            return perf_counter() - start, [artifact.compile_s for artifact in built]
        finally:
            pool.close()


if __name__ == "__main__":
    main()
