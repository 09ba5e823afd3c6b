"""Every hardware file: strict keys, a source behind each number, and numbers that agree."""

from __future__ import annotations

from pathlib import Path

import pytest

from fa4gen.core.errors import ResourceError, UnknownName
from fa4gen.hardware import (
    list_archs,
    list_skus,
    load_arch,
    load_sku,
    sibling_skus,
    sku_for_gpu,
)
from fa4gen.hardware.toml_facts import read_facts, read_toml

TOLERANCE = 0.02


@pytest.mark.parametrize("name", list_skus())
def test_peak_is_sms_times_clock_times_rate(name: str) -> None:
    """A peak with sparsity, or of another clock, or another SM count, shows here."""
    sku = load_sku(name)
    computed = sku.sm_count * sku.boost_clock_mhz * 1e6 * sku.arch.mma_flops_per_clk_sm["bf16"]
    assert computed * 1e-12 == pytest.approx(sku.peak_tflops, rel=TOLERANCE)
    assert sku.mma_tflops(sku.boost_clock_mhz) == pytest.approx(computed * 1e-12)


@pytest.mark.parametrize("name", list_skus())
def test_sku_is_plausible(name: str) -> None:
    sku = load_sku(name)
    assert sku.sustained_clock_mhz < sku.boost_clock_mhz <= sku.max_clock_mhz
    assert 1500 <= sku.dram_gbps <= 10_000
    assert 40 << 20 <= sku.l2_bytes <= 160 << 20
    assert all(source.strip() for source in sku.sources.values())


@pytest.mark.parametrize("name", list_archs())
def test_arch_is_plausible(name: str) -> None:
    arch = load_arch(name)
    major, minor = arch.compute_capability
    assert arch.target == f"sm_{major}{minor}a"
    assert arch.smem_per_cta_bytes == 227 * 2**10
    assert (arch.tmem_columns > 0) == (major >= 10)
    assert arch.mma_flops_per_clk_sm["bf16"] == arch.mma_flops_per_clk_sm["fp16"]
    assert all(source.strip() for source in arch.sources.values())


def test_the_exponential_gap_between_generations() -> None:
    """The reason for the polynomial: MMA doubles from Hopper to B200, MUFU only on B300."""
    sm90, sm100, sm103 = (load_arch(name) for name in ("sm90", "sm100", "sm103"))
    assert sm100.mma_flops_per_clk_sm["bf16"] == 2 * sm90.mma_flops_per_clk_sm["bf16"]
    assert sm100.mufu_per_clk_sm == sm90.mufu_per_clk_sm
    assert sm103.mufu_per_clk_sm == 2 * sm100.mufu_per_clk_sm


def test_every_arch_of_a_sku_exists_and_every_gpu_name_is_unique() -> None:
    skus = [load_sku(name) for name in list_skus()]
    assert {sku.arch.name for sku in skus} <= set(list_archs())
    keys = [(gpu_name, sku.sm_count) for sku in skus for gpu_name in sku.gpu_names]
    assert len(keys) == len(set(keys))


def test_sku_for_gpu() -> None:
    assert sku_for_gpu("NVIDIA H200", 132).name == "h200"
    assert sku_for_gpu("NVIDIA H100 80GB HBM3", 132).name == "h100_sxm5"
    with pytest.raises(UnknownName, match=r"NVIDIA H200 \(16 SMs\)"):
        sku_for_gpu("NVIDIA H200", 16)  # a MIG slice
    with pytest.raises(UnknownName, match="GeForce"):
        sku_for_gpu("NVIDIA GeForce RTX 4090", 128)


def test_siblings_share_the_arch_and_come_nearest_first() -> None:
    siblings = sibling_skus(load_sku("h200"))
    assert "h200" not in siblings
    assert siblings[-1] == "h100_pcie"  # fewest SMs in common
    assert {load_sku(name).arch.name for name in siblings} == {"sm90"}


def test_unknown_names_suggest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'h200'"):
        load_sku("h20o")
    with pytest.raises(UnknownName, match="sm90"):
        load_arch("sm75")


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ({"a": {"value": 1, "source": "doc"}, "b": {"value": 1, "source": "doc"}}, "unknown b"),
        ({}, "missing a"),
        ({"a": 1}, "got 1"),
        ({"a": {"value": 1, "source": " "}}, "no source"),
        ({"a": {"value": 1}}, "missing source"),
        ({"a": {"value": True, "source": "doc"}}, "got True"),
        ({"a": {"value": -1, "source": "doc"}}, "got -1"),
    ],
)
def test_facts_are_strict(table: dict[str, object], complaint: str) -> None:
    with pytest.raises(ResourceError, match=complaint):
        read_facts("here", table, ("a",))


def test_file_name_is_the_key(tmp_path: Path) -> None:
    (tmp_path / "x1.toml").write_text('name = "x2"\n')
    with pytest.raises(ResourceError, match="'x1'"):
        read_toml(tmp_path, "sku", "x1")
    (tmp_path / "x1.toml").write_text("name = \n")
    with pytest.raises(ResourceError, match="invalid TOML"):
        read_toml(tmp_path, "sku", "x1")
