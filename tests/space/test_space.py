"""The Hopper search space: complete, honest about its size, with defaults that always run."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fa4gen.codegen import load_manifest, templates_dir
from fa4gen.core.config import KernelConfig, Scheduler
from fa4gen.core.dtypes import DType
from fa4gen.core.errors import NoFeasibleKernel, ResourceError, UnknownName
from fa4gen.core.paths import data_dir
from fa4gen.core.problem import KernelSignature
from fa4gen.feasibility import canonicalise, check
from fa4gen.hardware import list_archs, load_arch
from fa4gen.space import list_spaces, load_space, space_for

SM90 = load_arch("sm90")
SPACE = space_for("sm90")
HD128 = KernelSignature(DType.BF16, 128, 128, causal=False, qhead_per_kvhead=1)
HD256 = replace(HD128, head_dim=256, head_dim_v=256)
HEAD_DIMS = range(8, 257, 8)


@pytest.mark.parametrize("name", list_spaces())
def test_every_space_has_the_knobs_of_its_template(name: str) -> None:
    space = load_space(name)
    read = set(load_manifest(space.arch, space.direction, templates_dir()).knobs)
    family = [name for name in list_archs() if load_arch(name).family == space.arch]
    assert {knob.name for name in family for knob in space_for(name).knobs} == read
    assert name == f"{space.arch}_{space.direction}"
    assert load_arch(space.arch).name == space.arch


@pytest.mark.parametrize("arch_name", list_archs())
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("group", [1, 2, 3, 5, 8, 64])
def test_defaults_run_for_every_head_dim(arch_name: str, causal: bool, group: int) -> None:
    space, arch = space_for(arch_name), load_arch(arch_name)
    for head_dim, head_dim_v in itertools.product(HEAD_DIMS, HEAD_DIMS):
        signature = KernelSignature(DType.FP16, head_dim, head_dim_v, causal, group)
        config = space.default(signature)
        verdict = check(signature, config, arch)
        assert verdict, f"{signature}: {verdict}"
        assert canonicalise(signature, config, arch) == config
        assert space.contains(config)


@pytest.mark.parametrize(
    ("head_dim", "head_dim_v", "causal", "tile", "more"),
    [
        (64, 64, False, (192, 128), {"p_in_registers", "pingpong", "q_prefetch"}),
        (96, 96, False, (192, 128), {"pingpong", "q_prefetch"}),
        (96, 96, True, (192, 128), {"pingpong", "q_prefetch"}),
        (128, 128, True, (128, 128), {"p_in_registers", "pingpong", "q_prefetch"}),
        (192, 128, False, (128, 96), {"p_in_registers", "pingpong", "q_prefetch"}),
        (192, 192, False, (128, 112), {"p_in_registers"}),
        (256, 256, True, (128, 64), {"p_in_registers", "pingpong"}),
    ],
)
def test_defaults_are_the_hand_tuned_table(
    head_dim: int, head_dim_v: int, causal: bool, tile: tuple[int, int], more: set[str]
) -> None:
    signature = KernelSignature(DType.BF16, head_dim, head_dim_v, causal, 1)
    config = SPACE.default(signature)
    assert (config.tile_m, config.tile_n) == tile
    varied = ("p_in_registers", "pingpong", "q_prefetch")
    assert {name for name in varied if getattr(config, name)} == more
    assert config.intra_warpgroup_overlap
    assert config.lazy_row_max
    assert config.rescale_threshold_log2 == 14.0
    assert config.scheduler is Scheduler.DYNAMIC


@pytest.mark.parametrize(
    ("group", "head_dim", "packed"),
    [(1, 128, False), (3, 128, False), (3, 64, True), (8, 128, True)],
)
def test_defaults_pack_wherever_feasibility_allows(group: int, head_dim: int, packed: bool) -> None:
    """128 rows do not divide into groups of 3 heads, 192 (head_dim 64) do."""
    signature = KernelSignature(DType.BF16, head_dim, head_dim, True, group)
    assert SPACE.default(signature).pack_gqa is packed


def test_no_default_beyond_the_table() -> None:
    with pytest.raises(NoFeasibleKernel, match="up to 256 and 256"):
        SPACE.default(replace(HD128, head_dim_v=512))


def test_cardinality_is_the_product() -> None:
    product = 1
    for knob in SPACE.knobs:
        product *= len(knob.values)
    assert SPACE.cardinality == product
    assert 1e4 < product < 1e9


@pytest.mark.parametrize("signature", [HD256, replace(HD256, qhead_per_kvhead=8)])
def test_configs_are_feasible_canonical_distinct_and_ordered(signature: KernelSignature) -> None:
    found = list(itertools.islice(SPACE.configs(signature, SM90), 3000))
    assert len(set(found)) == len(found) == 3000
    for config in found[::7]:
        assert check(signature, config, SM90)
        assert canonicalise(signature, config, SM90) == config
        assert SPACE.contains(config)
    assert found == list(itertools.islice(SPACE.configs(signature, SM90), 3000))


def test_configs_miss_nothing() -> None:
    """Random points of the space, in canonical form, are found whenever they are feasible."""
    listed = set(SPACE.configs(HD256, SM90))
    rng = random.Random(0)
    feasible = 0
    for _ in range(3000):
        values: dict[str, Any] = {knob.name: rng.choice(knob.values) for knob in SPACE.knobs}
        point = canonicalise(HD256, KernelConfig(**values), SM90)
        if check(HD256, point, SM90):
            feasible += 1
            assert point in listed
    assert feasible > 20


def test_packing_is_only_tried_where_there_are_groups() -> None:
    packed = {
        base.pack_gqa for base in SPACE.feasible_bases(replace(HD128, qhead_per_kvhead=4), SM90)
    }
    alone = {base.pack_gqa for base in SPACE.feasible_bases(HD128, SM90)}
    assert packed == {False, True}
    assert alone == {False}


def test_sample_is_feasible_seeded_and_varied() -> None:
    first = [SPACE.sample(random.Random(7), HD128, SM90) for _ in range(2)]
    assert first[0] == first[1]
    rng = random.Random(1)
    drawn = [SPACE.sample(rng, HD128, SM90) for _ in range(200)]
    assert all(check(HD128, config, SM90) and SPACE.contains(config) for config in drawn)
    assert len(set(drawn)) > 150


def test_neighbours_are_one_knob_away() -> None:
    config = SPACE.default(HD128)
    neighbours = list(SPACE.neighbours(config))
    assert len(set(neighbours)) == len(neighbours)
    for neighbour in neighbours:
        assert len(config.differences(neighbour)) == 1
        assert SPACE.contains(neighbour)
    tiles = {n.tile_n for n in neighbours if n.tile_n != config.tile_n}
    assert tiles == {112, 144}
    # From a value outside the range the nearest values inside it.
    outside = {n.tile_n for n in SPACE.neighbours(replace(config, tile_n=32))} - {32}
    assert outside == {64}


def test_contains() -> None:
    assert not SPACE.contains(KernelConfig(tile_n=16))
    assert SPACE.contains(KernelConfig())


def test_unknown_names() -> None:
    with pytest.raises(UnknownName, match="sm90"):
        space_for("sm70")
    with pytest.raises(UnknownName, match="sm90_fwd"):
        space_for("sm90", "sideways")
    with pytest.raises(UnknownName, match="tile_n"):
        SPACE.knob("tile_k")


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('name = "tile_m"', 'name = "tile_x"', "tile_x"),
        ("values = [64, 128, 192]", "values = [64, 192, 128]", "ascending"),
        ("values = [64, 128, 192]", "values = [64, 100]", "got 100"),
        ("values = [64, 128, 192]", "values = [64, 64]", "each once"),
        ("values = [64, 128, 192]", "values = [64, 128]", "no knob"),
        ("values = [64, 128, 192]", 'values = [64]\narchs = ["sm42"]', "sm42"),
        ('direction = "fwd"', 'direction = "fwd"\ncolour = "red"', "colour"),
    ],
)
def test_files_are_read_strictly(
    old: str, new: str, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (data_dir("search_spaces") / "sm90_fwd.toml").read_text()
    assert old in text
    folder = tmp_path / "search_spaces"
    folder.mkdir()
    (folder / "sm90_fwd.toml").write_text(text.replace(old, new, 1))
    monkeypatch.setenv("FA4GEN_HOME", str(tmp_path))
    with pytest.raises(ResourceError, match=complaint):
        load_space("sm90_fwd")
