"""From a configuration to a compiled kernel, ahead of time: what an evaluator measures."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Protocol

from fa4gen.codegen import GeneratedKernel, render, template_hash
from fa4gen.compile import Artifact, ArtifactCache, CompilePool
from fa4gen.core.config import KernelConfig
from fa4gen.core.errors import CompileError, EvaluationError, Fa4genError, RenderError
from fa4gen.core.evaluation import ResourceUse
from fa4gen.core.problem import KernelSignature
from fa4gen.core.verdict import Verdict
from fa4gen.feasibility import check
from fa4gen.hardware import Arch
from fa4gen.space import space_for


class Build(Protocol):
    """A compiled kernel on disk; :class:`fa4gen.compile.Artifact` is one."""

    @property
    def artifact_id(self) -> str:
        """Equal ids are equal kernels."""

    @property
    def object_path(self) -> Path:
        """What the worker loads."""

    @property
    def resources(self) -> ResourceUse:
        """What ptxas allotted."""

    @property
    def compile_s(self) -> float:
        """Seconds of compilation."""


class KernelBuilds(Protocol):
    """Where compiled kernels come from; the seam by which tests hand over kernels of their own."""

    def anchor(self, signature: KernelSignature) -> KernelConfig:
        """The default configuration that gains are relative to."""

    def verdict(self, signature: KernelSignature, config: KernelConfig) -> Verdict:
        """Whether the configuration may run at all."""

    def template_hash(self) -> str:
        """Identity of the template."""

    def submit(
        self,
        signature: KernelSignature,
        config: KernelConfig,
        *,
        urgent: bool = False,
        later: bool = False,
    ) -> Future[Build]:
        """Begin to build; the future ends with RenderError or CompileError for a bad kernel.

        ``urgent``: somebody waits for it; ``later``: everything else first.
        """

    def close(self) -> None:
        """Give back processes."""


class PoolBuilds:
    """Renders here, compiles in a :class:`CompilePool`."""

    def __init__(
        self,
        arch: Arch,
        *,
        workers: int | None = None,
        timeout_s: float = 60.0,
        cache: ArtifactCache | None = None,
    ) -> None:
        self._arch = arch
        self._pool = CompilePool(workers=workers, timeout_s=timeout_s, cache=cache)
        self._space = space_for(arch.name)
        self._futures: dict[tuple[KernelSignature, str], Future[Build]] = {}
        self._later: set[tuple[KernelSignature, str]] = set()
        self._compiling: dict[tuple[KernelSignature, str], GeneratedKernel] = {}

    def anchor(self, signature: KernelSignature) -> KernelConfig:
        """The search space's default."""
        return self._space.default(signature)

    def verdict(self, signature: KernelSignature, config: KernelConfig) -> Verdict:
        """As ``feasibility`` says."""
        return check(signature, config, self._arch)

    def template_hash(self) -> str:
        """Of the forward template of the arch."""
        return template_hash(self._arch.name)

    def submit(
        self,
        signature: KernelSignature,
        config: KernelConfig,
        *,
        urgent: bool = False,
        later: bool = False,
    ) -> Future[Build]:
        """Render now, compile when a process is free; asking again gives the same future.

        ``urgent`` moves a kernel that is still queued to the front; one that was submitted for
        ``later`` takes its ordinary place when it is submitted without that.
        """
        key = (signature, config.config_id)
        known = self._futures.get(key)
        sooner = urgent or (key in self._later and not later)
        if known is not None and (known.done() or not sooner):
            return known
        self._later.discard(key)
        if later and not urgent:
            self._later.add(key)
        future: Future[Build] = Future()
        try:
            generated = self._compiling.get(key) or render(signature, config, self._arch)
        except RenderError as error:
            future.set_exception(error)
        else:
            self._compiling[key] = generated

            def ended(done: Future[Artifact]) -> None:
                self._compiling.pop(key, None)
                _pass_on(done, future)

            self._pool.submit(generated, urgent=urgent, later=later).add_done_callback(ended)
        self._futures[key] = future
        return future

    def close(self) -> None:
        """Close the pool."""
        self._pool.close()


def _pass_on(done: Future[Artifact], to: Future[Build]) -> None:
    """Copy one future's end to another."""
    if done.cancelled():
        to.set_exception(EvaluationError("build: cancelled; the compile pool was closed"))
    elif (error := done.exception()) is not None:
        to.set_exception(error)
    else:
        to.set_result(done.result())


def await_build(future: Future[Build]) -> Build | RenderError | CompileError:
    """The build, or the error that makes the kernel a bad one.

    Raises:
        EvaluationError: it failed for a reason that is not the kernel's.
    """
    try:
        return future.result()
    except (RenderError, CompileError) as error:
        return error
    except Fa4genError as error:
        raise EvaluationError(f"build: {error}") from error
    except Exception as error:
        raise EvaluationError(
            f"build: {type(error).__name__}: {error}; the compile pool is broken"
        ) from error
