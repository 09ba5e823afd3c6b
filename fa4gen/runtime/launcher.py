"""Compiled kernels of one arch: rendered, compiled and loaded once per process and configuration.

A kernel compiled before, by any process, comes from the cache on disk: then the first call of a
process costs the import of CuTe-DSL and a load of milliseconds instead of a compile of seconds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from fa4gen.core.config import KernelConfig
from fa4gen.core.problem import KernelSignature
from fa4gen.feasibility import canonicalise
from fa4gen.hardware import Arch

KernelFunction = Callable[..., Any]
"""``function(q, k, v, out, lse, softmax_scale, num_sms)`` on tensors of one CUDA device: q, k, v
and out (batch, seqlen, num_heads, head_dim), lse (batch, num_heads_q, seqlen_q) float32, and the
number of SMs that a persistent kernel, with a fixed walk or a dynamic one, spreads over. In e4m3
``q_descale, k_descale, v_descale``, float32 (batch, num_heads_kv), come before the scale. It
launches on torch's current stream of that device, makes the device current for the launch, and
refuses tensors of another type, rank, head_dim or alignment."""

BuildFunction = Callable[[KernelSignature, KernelConfig], KernelFunction]


class Kernel:
    """A loaded kernel."""

    __slots__ = ("config", "function", "launched_on", "signature")

    def __init__(
        self, signature: KernelSignature, config: KernelConfig, function: KernelFunction
    ) -> None:
        self.signature = signature
        self.config = config
        self.function = function
        self.launched_on: set[int] = set()
        """Indices of devices where it ran; the first launch on each loads the module there."""


class Launcher:
    """The kernels of one arch; safe to use from several threads.

    Args:
        build: makes a kernel function; by default renders, compiles or finds in the cache, loads.
    """

    def __init__(self, arch: Arch, *, build: BuildFunction | None = None) -> None:
        self.arch = arch
        self._build = self._compiled if build is None else build
        self._kernels: dict[tuple[KernelSignature, KernelConfig], Kernel] = {}
        self._turn = threading.Lock()

    def kernel(self, signature: KernelSignature, config: KernelConfig) -> Kernel:
        """The loaded kernel; of several threads that ask for a new one, one builds it.

        Raises:
            RenderError: the template cannot be rendered.
            CompileError: CuTe-DSL or ptxas refused it.
            MissingDependency: CuTe-DSL cannot be imported.
        """
        key = (signature, canonicalise(signature, config, self.arch, derive=False))
        found = self._kernels.get(key)
        if found is not None:
            return found
        with self._turn:
            found = self._kernels.get(key)
            if found is None:
                found = self._kernels[key] = Kernel(*key, self._build(*key))
            return found

    def _compiled(self, signature: KernelSignature, config: KernelConfig) -> KernelFunction:
        from fa4gen.codegen import render
        from fa4gen.compile import ArtifactCache, compile_kernel, launchable, load

        artifact = compile_kernel(render(signature, config, self.arch), ArtifactCache())
        return launchable(load(artifact), config, signature.dtype)
