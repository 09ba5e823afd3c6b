"""From a rendered kernel to an artifact on disk: a killable process pool and a cache.

Importing this package imports neither CuTe-DSL nor torch.
"""

from fa4gen.compile.artifact import (
    FUNCTION_NAME,
    Artifact,
    CompiledKernel,
    artifact_key,
    toolchain,
)
from fa4gen.compile.cache import ArtifactCache, default_cache_dir
from fa4gen.compile.driver import compile_kernel
from fa4gen.compile.loader import import_runtime, launchable, load
from fa4gen.compile.pool import CompilePool

__all__ = [
    "FUNCTION_NAME",
    "Artifact",
    "ArtifactCache",
    "CompilePool",
    "CompiledKernel",
    "artifact_key",
    "compile_kernel",
    "default_cache_dir",
    "import_runtime",
    "launchable",
    "load",
    "toolchain",
]
