"""What a compile leaves behind, and the key under which it may be found again."""

from __future__ import annotations

import gzip
import platform
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from fa4gen.codegen import GeneratedKernel
from fa4gen.core.canonical import identity
from fa4gen.core.evaluation import ResourceUse
from fa4gen.versions import installed

SCHEMA_VERSION = 1
"""Raised when the meaning of a stored artifact changes; older ones are then never found."""

FUNCTION_NAME = "fa4gen_fwd"
"""Name of the compiled host function inside every object."""

TOOLCHAIN = (
    "nvidia-cutlass-dsl",
    "nvidia-cutlass-dsl-libs-base",
    "nvidia-cutlass-dsl-libs-core",
    "nvidia-cutlass-dsl-libs-cu12",
    "nvidia-cutlass-dsl-libs-cu13",
    "apache-tvm-ffi",
)
"""Packages whose versions decide what an object looks like; ptxas comes inside them."""

_CPU_FEATURES = ("avx", "bmi", "fma", "sse", "asimd", "sve")


@dataclass(frozen=True, slots=True)
class CompiledKernel:
    """Everything a compile gives, in memory."""

    object_bytes: bytes
    """Host object: the launch code with the cubin inside, exported as :data:`FUNCTION_NAME`."""
    ptx_gz: bytes
    """The PTX that ptxas got, UTF-8, gzip."""
    resources: ResourceUse
    compile_s: float


@dataclass(frozen=True, slots=True)
class Artifact:
    """A compiled kernel on disk."""

    artifact_id: str
    """The key it was stored under: see :func:`artifact_key`."""
    object_path: Path
    ptx_path: Path
    """The PTX, gzip; read it with :meth:`ptx`."""
    resources: ResourceUse
    compile_s: float
    """Seconds it took to compile, rendering and the start of a worker excluded."""

    def ptx(self) -> str:
        """Text of the PTX that ptxas got.

        Raises:
            OSError: the file is gone, or is not gzip.
        """
        return gzip.decompress(self.ptx_path.read_bytes()).decode()


def artifact_key(generated: GeneratedKernel) -> str:
    """Identity of a compile: equal keys may share an object.

    It covers the source, the target, the versions of the toolchain and the features of this CPU,
    because the launch code inside an object uses the vector instructions of the machine that
    compiled it. The driver and the GPU are not in it: neither takes part in a compile.
    """
    return identity(
        {
            "schema": SCHEMA_VERSION,
            "source": generated.source,
            "target": generated.target,
            "toolchain": toolchain(),
            "host": _host(),
        }
    )


def toolchain() -> dict[str, str | None]:
    """Installed version of every package in :data:`TOOLCHAIN`; imports none of them."""
    return {name: installed(name) for name in TOOLCHAIN}


@lru_cache(maxsize=1)
def _host() -> str:
    """Operating system, CPU family and the CPU's vector features."""
    features: set[str] = set()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            label, _, words = line.partition(":")
            if label.strip() in {"flags", "Features"}:
                features = {word for word in words.split() if word.startswith(_CPU_FEATURES)}
                break
    except OSError:
        pass  # not Linux: the family alone has to do
    return " ".join([sys.platform, platform.machine(), *sorted(features)])
