"""One build per kernel, whoever asks; the default where a row's configuration does not compile."""

from __future__ import annotations

import threading
import time
import warnings
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from runtime_fakes import problem, row

from fa4gen.core.config import KernelConfig
from fa4gen.core.errors import CompileError
from fa4gen.core.problem import KernelSignature
from fa4gen.hardware import load_sku
from fa4gen.runtime import RuntimeSettings
from fa4gen.runtime.engine import TunedKernels
from fa4gen.runtime.launcher import KernelFunction, Launcher
from fa4gen.runtime.selector import Selector
from fa4gen.space import space_for

H200 = load_sku("h200")
SIGNATURE = problem().signature
ROW = KernelConfig(tile_n=96)


class Builder:
    """Builds functions that do nothing; counts, and fails for some configurations."""

    def __init__(self, *broken: KernelConfig) -> None:
        self.built: list[KernelConfig] = []
        self.broken = broken

    def __call__(self, signature: KernelSignature, config: KernelConfig) -> KernelFunction:
        time.sleep(0.01)
        self.built.append(config)
        if config in self.broken:
            raise CompileError("ptxas: no")

        def nothing(*_: Any) -> None:
            return None

        return nothing


def test_threads_share_one_build() -> None:
    build = Builder()
    launcher = Launcher(H200.arch, build=build)
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda: found.append(launcher.kernel(SIGNATURE, ROW)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert build.built == [ROW]
    assert {id(kernel) for kernel in found} == {id(found[0])}


def test_configurations_that_are_one_kernel_are_built_once() -> None:
    build = Builder()
    launcher = Launcher(H200.arch, build=build)
    same = replace(ROW, exp2_poly_degree=5, pack_gqa=True)
    assert launcher.kernel(SIGNATURE, ROW) is launcher.kernel(SIGNATURE, same)
    other = problem(head_dim=64).signature
    assert launcher.kernel(other, ROW) is not launcher.kernel(SIGNATURE, ROW)
    assert len(build.built) == 2


def test_a_failed_build_is_tried_again() -> None:
    build = Builder(ROW)
    launcher = Launcher(H200.arch, build=build)
    with pytest.raises(CompileError):
        launcher.kernel(SIGNATURE, ROW)
    build.broken = ()
    assert launcher.kernel(SIGNATURE, ROW).config == ROW


def test_a_broken_configuration_is_not_compiled_for_every_shape() -> None:
    rows = [row(problem(), ROW), row(problem(seqlen_q=1100), ROW)]
    build = Builder(ROW)
    source = TunedKernels(H200, Selector(rows, H200), Launcher(H200.arch, build=build))
    with pytest.warns(RuntimeWarning, match="ptxas: no"):
        source.prepare(problem())
    with warnings.catch_warnings(action="error"):
        for seqlen in (1024, 1100, 1150):
            source.prepare(problem(seqlen_q=seqlen))
    assert build.built.count(ROW) == 1


def kernels(*broken: KernelConfig, settings: RuntimeSettings | None = None) -> TunedKernels:
    selector = Selector([row(problem(), ROW)], H200, settings=settings)
    return TunedKernels(H200, selector, Launcher(H200.arch, build=Builder(*broken)))


def test_the_selected_configuration_is_built() -> None:
    selection, kernel = kernels().prepare(problem())
    assert selection.config == kernel.config == ROW


def test_the_default_runs_where_the_row_does_not_compile() -> None:
    with pytest.warns(RuntimeWarning, match=r"ptxas: no; the default runs instead"):
        selection, kernel = kernels(ROW).prepare(problem())
    assert selection.config == kernel.config != ROW
    assert "does not compile" in selection.notes[-1]


def test_required_rows_are_never_replaced() -> None:
    with pytest.raises(CompileError, match="ptxas: no"):
        kernels(ROW, settings=RuntimeSettings(require_exact=True)).prepare(problem())


@pytest.mark.slow
def test_a_real_kernel_is_built_once_and_takes_what_the_hot_path_gives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    from fa4gen.compile import driver, loader

    default = space_for("sm90").default(SIGNATURE)
    kernel = Launcher(H200.arch).kernel(SIGNATURE, default)

    def refuse(*_: Any) -> Any:
        raise AssertionError("compiled again")

    monkeypatch.setattr(driver, "compile_source", refuse)
    assert Launcher(H200.arch).kernel(SIGNATURE, default).config == kernel.config
    q = torch.zeros(1, 8, 1, 128, dtype=torch.bfloat16)
    # The default takes its tiles from a counter, which without a GPU torch cannot give.
    counters = SimpleNamespace(for_launch=lambda lse: torch.zeros(1, dtype=torch.int32))
    monkeypatch.setattr(loader, "TILE_COUNTERS", counters)
    with pytest.raises(ValueError, match=r"Mismatched Tensor on argument #0.*device_type=cuda"):
        kernel.function(q, q, q, q, torch.zeros(1, 1, 8), 0.5, 3)
