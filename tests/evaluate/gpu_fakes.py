"""Builds without a compiler: ``num_kv_stages`` picks a kernel by name from a list."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from fa4gen.core.config import KernelConfig
from fa4gen.core.errors import CompileError, EvaluationError, RenderError
from fa4gen.core.evaluation import ResourceUse
from fa4gen.core.problem import KernelSignature
from fa4gen.core.verdict import Reason, Verdict
from fa4gen.evaluate.builds import Build

RESOURCES = ResourceUse(168, 0, 1024, 2048)


@dataclass(frozen=True)
class NamedBuild:
    """A build whose object path is the name of a fake kernel."""

    artifact_id: str
    object_path: Path
    resources: ResourceUse = RESOURCES
    compile_s: float = 0.5


class NamedBuilds:
    """Stage count 1 is the anchor, ``names[0]``; 2 is ``names[1]`` and so on."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self.submitted: list[str] = []
        self.later: list[str] = []
        self.closed = False

    def config(self, name: str) -> KernelConfig:
        return KernelConfig(
            tile_m=64, tile_n=64, pingpong=False, num_kv_stages=1 + self.names.index(name)
        )

    def anchor(self, signature: KernelSignature) -> KernelConfig:
        return self.config(self.names[0])

    def verdict(self, signature: KernelSignature, config: KernelConfig) -> Verdict:
        if self._name(config) != "infeasible":
            return Verdict()
        return Verdict((Reason("smem", "smem: got 2, allowed: 1", 1.0),))

    def template_hash(self) -> str:
        return "feed"

    def submit(
        self,
        signature: KernelSignature,
        config: KernelConfig,
        *,
        urgent: bool = False,
        later: bool = False,
    ) -> Future[Build]:
        name = self._name(config)
        (self.later if later else self.submitted).append(name)
        future: Future[Build] = Future()
        errors = {
            "render": RenderError("template line 3"),
            "compile": CompileError("ptxas says no"),
            "no_compiler": EvaluationError("the pool is closed"),
        }
        if name in errors:
            future.set_exception(errors[name])
        else:
            causal = "-causal" if signature.causal else ""
            future.set_result(NamedBuild(name, Path(name + causal)))
        return future

    def close(self) -> None:
        self.closed = True

    def _name(self, config: KernelConfig) -> str:
        return self.names[config.num_kv_stages - 1]
