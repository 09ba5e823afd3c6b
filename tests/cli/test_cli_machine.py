"""Which GPU is here, asked of a stand-in for NVML."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from fa4gen.cli.machine import AUTO, Machine, look, resolve
from fa4gen.core.errors import UnknownName
from fa4gen.hardware import load_sku


class FakeNvml:
    """Two GPUs, the first of a kind fa4gen does not know."""

    names = ("NVIDIA Something", load_sku("h200").gpu_names[0])

    def nvmlInit(self) -> None:  # noqa: N802 - NVML's own spelling
        """Nothing."""

    def __getattr__(self, name: str) -> Any:
        answers: dict[str, Any] = {
            "nvmlSystemGetDriverVersion": lambda: "580.1",
            "nvmlDeviceGetCount": lambda: len(self.names),
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetUUID": lambda index: f"GPU-{index}",
            "nvmlDeviceGetName": lambda index: self.names[index],
            "nvmlDeviceGetNumGpuCores": lambda index: 128 * load_sku("h200").sm_count,
            "nvmlDeviceGetMemoryInfo": lambda index: SimpleNamespace(total=2**37),
        }
        return answers[name]


def test_every_gpu_is_found_with_its_sku(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    first, second = look(FakeNvml()).gpus
    assert (first.index, first.sku) == (0, None)
    assert (second.index, second.sku, second.driver) == (1, load_sku("h200"), "580.1")


@pytest.mark.parametrize("visible", ["1", "GPU-1"])
def test_gpus_are_counted_as_cuda_counts_them(
    visible: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    (only,) = look(FakeNvml()).gpus
    assert (only.index, only.name) == (0, FakeNvml.names[1])


def test_hidden_gpus_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert look(FakeNvml()) == Machine((), "CUDA_VISIBLE_DEVICES hides every GPU")


def test_a_missing_driver_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    class Broken:
        def nvmlInit(self) -> None:  # noqa: N802 - NVML's own spelling
            raise OSError("library not found")

    assert look(Broken()) == Machine((), "NVML: library not found")


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return look(FakeNvml())


def test_auto_is_the_first_gpu_that_is_known(two_gpus: Machine) -> None:
    target = resolve(AUTO, two_gpus)
    assert target.gpu == two_gpus.gpus[1]
    assert (target.sku.name, target.notice) == ("h200", "")


def test_another_sku_than_the_one_here_has_no_gpu(two_gpus: Machine) -> None:
    target = resolve("h100_sxm5", two_gpus)
    assert (target.gpu, target.notice) == (None, "no h100_sxm5 in this machine")


def test_auto_without_a_gpu_says_so() -> None:
    target = resolve(AUTO, Machine((), "no driver"))
    assert (target.sku.name, target.gpu) == ("b200", None)
    assert target.notice == "no GPU here (no driver)"


def test_auto_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FA4GEN_SKU", "gh200")
    assert resolve(AUTO, Machine((), "no driver")).sku.name == "gh200"


def test_an_unknown_sku_names_the_known_ones() -> None:
    with pytest.raises(UnknownName, match="did you mean 'h200'"):
        resolve("h20", Machine(()))
