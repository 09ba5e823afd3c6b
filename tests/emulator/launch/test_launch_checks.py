"""Launches that no driver accepts, and the numbers of CUDA's interface."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fa4gen.compile.emulation import device_of
from fa4gen.core.errors import CaptureFailed, KernelFault, UnknownName
from fa4gen.emulator.launch import Launch, LaunchAttribute
from fa4gen.emulator.launch.device import device_attribute
from fa4gen.emulator.launch.launch import check_launch, cluster_shape

GOOD = Launch("k", (4, 2, 1), (128, 2, 1), (2, 1, 1), 1024, ())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grid": (0, 1, 1)}, r"grid \(0, 1, 1\)"),
        ({"grid": (2, 65536, 1)}, "grid"),
        ({"block": (0, 1, 1)}, "block"),
        ({"block": (1, 1, 65)}, "block"),
        ({"block": (64, 17, 1)}, "= 1088 threads, allowed: 1024"),
        ({"cluster": (3, 1, 1)}, r"grid \(4, 2, 1\), allowed: multiples of the cluster \(3, 1"),
        ({"cluster": (0, 1, 1)}, "cluster"),
        ({"cluster": (4, 2, 2), "grid": (4, 2, 2)}, "= 16 CTAs, allowed: 1 to 8"),
        ({"dynamic_smem": 2049}, "2049 bytes of dynamic shared memory, allowed: 2048"),
    ],
)
def test_launches_that_are_refused(change: dict[str, object], message: str) -> None:
    check_launch(GOOD, 2048, non_portable_cluster=False)
    with pytest.raises(KernelFault, match=f"launch of k: got .*{message}"):
        check_launch(replace(GOOD, **change), 2048, non_portable_cluster=False)  # type: ignore[arg-type]


def test_large_clusters_where_the_kernel_allows_them() -> None:
    large = replace(GOOD, cluster=(4, 2, 2), grid=(4, 2, 2))
    check_launch(large, 2048, non_portable_cluster=True)
    with pytest.raises(KernelFault, match="allowed: 1 to 16"):
        check_launch(replace(large, cluster=(4, 2, 4), grid=(4, 2, 4)), 2048)


def test_attributes_of_a_launch_have_the_numbers_of_cuda() -> None:
    from cuda.bindings.runtime import cudaLaunchAttributeID as Id

    def attribute(number: int, *values: int) -> LaunchAttribute:
        raw = b"".join(value.to_bytes(4, "little") for value in values)
        return LaunchAttribute(int(number), raw.ljust(64, b"\xaa"))

    cluster = attribute(Id.cudaLaunchAttributeClusterDimension, 2, 1, 3)
    assert cluster_shape((cluster,)) == (2, 1, 3)
    assert cluster_shape((attribute(Id.cudaLaunchAttributePriority, 2, 2, 2),)) == (1, 1, 1)
    assert cluster_shape((attribute(Id.cudaLaunchAttributeClusterDimension, 0, 0, 0),)) == (1, 1, 1)
    for number, name in (
        (Id.cudaLaunchAttributeCooperative, "cooperative"),
        (Id.cudaLaunchAttributeProgrammaticStreamSerialization, "programmatic"),
    ):
        for value in (0, 1):
            launch = replace(GOOD, attributes=(cluster, attribute(number, value)))
            assert getattr(launch, name) is bool(value)
            assert launch.cooperative + launch.programmatic == value


@pytest.mark.parametrize("target", ["sm_90a", "sm_100a", "sm_103a"])
def test_answers_about_the_device_have_the_numbers_of_cuda(target: str) -> None:
    from cuda.bindings.runtime import cudaDeviceAttr as Attribute

    device = device_of(target, sm_count=5)
    major, minor = device.compute_capability
    assert f"sm_{major}{minor}a" == target
    for attribute, value in {
        Attribute.cudaDevAttrMultiProcessorCount: 5,
        Attribute.cudaDevAttrMaxSharedMemoryPerBlockOptin: 227 << 10,
        Attribute.cudaDevAttrReservedSharedMemoryPerBlock: 1 << 10,
        Attribute.cudaDevAttrMaxSharedMemoryPerBlock: 48 << 10,
        Attribute.cudaDevAttrComputeCapabilityMajor: major,
        Attribute.cudaDevAttrComputeCapabilityMinor: minor,
        Attribute.cudaDevAttrMaxThreadsPerBlock: 1024,
        Attribute.cudaDevAttrMaxBlockDimZ: 64,
        Attribute.cudaDevAttrMaxGridDimX: 2**31 - 1,
        Attribute.cudaDevAttrMaxGridDimZ: 65535,
        Attribute.cudaDevAttrWarpSize: 32,
    }.items():
        assert device_attribute(device, int(attribute)) == value, attribute
    with pytest.raises(CaptureFailed, match="device attribute 13, answered: 1, 2, 3"):
        device_attribute(device, int(Attribute.cudaDevAttrClockRate))


def test_the_products_that_stand_for_a_target() -> None:
    assert device_of("sm_90a").sm_count == 132
    assert device_of("sm_100a").sm_count == 148
    with pytest.raises(UnknownName, match="sm_80"):
        device_of("sm_80")
