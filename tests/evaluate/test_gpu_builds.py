"""Builds: who is to blame when one fails, and that asking twice compiles once."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from gpu_fakes import NamedBuild

from fa4gen.codegen import GeneratedKernel, render
from fa4gen.core.config import KernelConfig
from fa4gen.core.dtypes import DType
from fa4gen.core.errors import (
    CompileError,
    CompilerUnavailable,
    CompileTimeout,
    EvaluationError,
    RenderError,
)
from fa4gen.core.problem import KernelSignature
from fa4gen.evaluate import builds as module
from fa4gen.evaluate.builds import Build, PoolBuilds, await_build
from fa4gen.feasibility import check
from fa4gen.hardware import Arch, load_arch
from fa4gen.space import space_for

ARCH = load_arch("sm90")
SIGNATURE = KernelSignature(DType.BF16, 128, 128, causal=True, qhead_per_kvhead=1)


class StillPool:
    """A compile pool whose compiles end when the test says so."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.asked: list[tuple[str, bool]] = []
        self.later: list[bool] = []
        self.future: Future[Build] = Future()
        self.closed = False

    def submit(
        self, generated: GeneratedKernel, *, urgent: bool = False, later: bool = False
    ) -> Future[Build]:
        self.asked.append((generated.config.config_id, urgent))
        self.later.append(later)
        return self.future

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> StillPool:
    made = StillPool()
    monkeypatch.setattr(module, "CompilePool", lambda **_: made)
    return made


def test_anchor_and_verdict_are_those_of_space_and_feasibility(pool: StillPool) -> None:
    builds = PoolBuilds(ARCH)
    anchor = builds.anchor(SIGNATURE)
    assert anchor == space_for("sm90").default(SIGNATURE)
    assert builds.verdict(SIGNATURE, anchor) == check(SIGNATURE, anchor, ARCH)
    assert len(builds.template_hash()) == 16
    builds.close()
    assert pool.closed


def test_asking_twice_compiles_once_but_urgency_is_passed_on(
    pool: StillPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered: list[str] = []

    def counted(signature: KernelSignature, config: KernelConfig, arch: Arch) -> GeneratedKernel:
        rendered.append(config.config_id)
        return render(signature, config, arch)

    monkeypatch.setattr(module, "render", counted)
    builds = PoolBuilds(ARCH)
    config = builds.anchor(SIGNATURE)
    first = builds.submit(SIGNATURE, config)
    assert builds.submit(SIGNATURE, config) is first
    urgent = builds.submit(SIGNATURE, config, urgent=True)
    assert pool.asked == [(config.config_id, False), (config.config_id, True)]
    build = NamedBuild("a", Path("a"))
    pool.future.set_result(build)
    assert first.result(timeout=1) is urgent.result(timeout=1) is build
    assert builds.submit(SIGNATURE, config, urgent=True).result() is build
    assert len(pool.asked) == 2
    assert rendered == [config.config_id]


def test_a_kernel_for_later_is_moved_up_when_it_is_wanted(pool: StillPool) -> None:
    builds = PoolBuilds(ARCH)
    config = builds.anchor(SIGNATURE)
    first = builds.submit(SIGNATURE, config, later=True)
    assert builds.submit(SIGNATURE, config, later=True) is first
    soon = builds.submit(SIGNATURE, config)
    assert builds.submit(SIGNATURE, config, later=True) is soon, "not moved back"
    assert builds.submit(SIGNATURE, config) is soon
    assert pool.later == [True, False]
    pool.future.set_result(build := NamedBuild("a", Path("a")))
    assert first.result(timeout=1) is soon.result(timeout=1) is build


def test_a_render_error_waits_in_the_future(
    pool: StillPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RenderError("line 3")

    monkeypatch.setattr(module, "render", broken)
    builds = PoolBuilds(ARCH)
    error = await_build(builds.submit(SIGNATURE, builds.anchor(SIGNATURE)))
    assert isinstance(error, RenderError)
    assert pool.asked == []


@pytest.mark.parametrize("error", [CompileError("no"), CompileTimeout("late")])
def test_compile_errors_blame_the_kernel(pool: StillPool, error: CompileError) -> None:
    builds = PoolBuilds(ARCH)
    future = builds.submit(SIGNATURE, builds.anchor(SIGNATURE))
    pool.future.set_exception(error)
    assert await_build(future) is error


@pytest.mark.parametrize("error", [CompilerUnavailable("gone"), OSError("disk")])
def test_other_errors_blame_the_evaluator(pool: StillPool, error: Exception) -> None:
    builds = PoolBuilds(ARCH)
    future = builds.submit(SIGNATURE, builds.anchor(SIGNATURE))
    pool.future.set_exception(error)
    with pytest.raises(EvaluationError, match=r"build: .*(gone|disk)"):
        await_build(future)


def test_a_closed_pool_blames_the_evaluator(pool: StillPool) -> None:
    builds = PoolBuilds(ARCH)
    future = builds.submit(SIGNATURE, builds.anchor(SIGNATURE))
    pool.future.cancel()
    pool.future.set_running_or_notify_cancel()
    with pytest.raises(EvaluationError, match="cancelled"):
        await_build(future)
