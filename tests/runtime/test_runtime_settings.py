"""Environment variables and the SKU of a GPU."""

from __future__ import annotations

import pytest

from fa4gen.core.errors import InputError, UnknownName
from fa4gen.core.evaluation import MeasurementPolicy
from fa4gen.hardware import load_sku
from fa4gen.runtime import RuntimeSettings
from fa4gen.runtime import settings as settings_module
from fa4gen.runtime.devices import GpuFacts, resolve_sku

H200 = load_sku("h200")
SEEN = GpuFacts("NVIDIA H200", H200.sm_count, (9, 0))


def test_an_empty_environment_gives_the_defaults() -> None:
    assert RuntimeSettings.from_environment({}) == RuntimeSettings()
    empty = dict.fromkeys(("FA4GEN_SKU", "FA4GEN_POLICY", "FA4GEN_REQUIRE_EXACT"), "")
    assert RuntimeSettings.from_environment(empty) == RuntimeSettings()


def test_every_variable_is_read() -> None:
    found = RuntimeSettings.from_environment(
        {"FA4GEN_SKU": "h200", "FA4GEN_POLICY": "eager-warm-burst", "FA4GEN_REQUIRE_EXACT": "1"}
    )
    assert found.sku == "h200"
    assert found.policy == MeasurementPolicy.parse("eager-warm-burst")
    assert found.require_exact


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("FA4GEN_REQUIRE_EXACT", "yes", "known: 0, 1"),
        ("FA4GEN_POLICY", "graph-cold", "graph-cold-sustained"),
        ("FA4GEN_POLICY", "graph-tepid-burst", "did you mean"),
    ],
)
def test_a_meaningless_value_is_an_error(name: str, value: str, hint: str) -> None:
    with pytest.raises(UnknownName, match=f"{name}.*{hint}"):
        RuntimeSettings.from_environment({name: value})


def test_the_table_names_every_variable_of_the_package() -> None:
    for name in ("DB", "CACHE_DIR", "HOME", "SKU", "POLICY", "REQUIRE_EXACT"):
        assert f"``FA4GEN_{name}``" in (settings_module.__doc__ or "")


def test_a_known_gpu_is_its_sku() -> None:
    resolved = resolve_sku(SEEN)
    assert (resolved.sku, resolved.stand_in, resolved.warning) == (H200, False, "")


def test_an_override_goes_first_but_must_be_of_the_arch() -> None:
    assert resolve_sku(SEEN, "h100_sxm5").sku.name == "h100_sxm5"
    with pytest.raises(InputError, match=r"got b200 \(sm100\), allowed on NVIDIA H200: .*h200"):
        resolve_sku(SEEN, "b200")
    with pytest.raises(UnknownName, match="did you mean 'h200'"):
        resolve_sku(SEEN, "h20")


def test_an_unknown_gpu_stands_beside_the_nearest_of_its_arch() -> None:
    resolved = resolve_sku(GpuFacts("NVIDIA H20", H200.sm_count - 54, (9, 0)))
    assert resolved.stand_in
    assert resolved.sku.arch.name == "sm90"
    assert resolved.sku.name == "h100_pcie", "the sm90 SKU with the fewest SMs"
    assert "NVIDIA H20" in resolved.warning
    assert "FA4GEN_SKU" in resolved.warning


def test_a_slice_of_a_known_gpu_is_not_that_gpu() -> None:
    assert resolve_sku(GpuFacts("NVIDIA H200", 60, (9, 0))).stand_in


@pytest.mark.parametrize("capability", [(8, 0), (11, 0), (12, 0)])
def test_a_gpu_without_kernels_is_refused_by_name(capability: tuple[int, int]) -> None:
    dotted = f"{capability[0]}.{capability[1]}"
    with pytest.raises(InputError, match=rf"compute capability {dotted}, allowed: 10.0"):
        resolve_sku(GpuFacts("NVIDIA X", 100, capability))
