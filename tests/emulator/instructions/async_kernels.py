"""Pieces of PTX, and runs under every policy, for the tests of barriers and copies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from ptx_kernel import run_ptx

from fa4gen.emulator.emulate import Emulation
from fa4gen.emulator.findings import FindingKind

POLICIES = ("eager", "lazy", *(f"seed:{seed}" for seed in range(4)))

FEW = ("eager", "lazy", "seed:0")

REGISTERS = """
.reg .pred %p<16>; .reg .b16 %rs<8>; .reg .b32 %r<64>; .reg .b64 %rd<32>; .reg .b128 %rq<2>;
.reg .pred %lead; .reg .b32 %thr, %lane, %warp, %base, %rank;
mov.u32 %thr, %tid.x;
and.b32 %lane, %thr, 31;
shr.u32 %warp, %thr, 5;
mov.u32 %base, smem;
mov.u32 %rank, %cluster_ctarank;
setp.eq.u32 %lead, %thr, 0;
"""
"""Registers for everyone: ``%lead`` is thread 0, ``%base`` the start of shared memory."""

CLUSTER_SYNC = "barrier.cluster.arrive; barrier.cluster.wait;\n"


def wait(barrier: str, parity: int | str) -> str:
    """Wait for a phase of the mbarrier at ``[barrier]``."""
    return f"""
{{ .reg .pred %done;
AGAIN: mbarrier.try_wait.parity.shared::cta.b64 %done, [{barrier}], {parity}, 10000000;
@%done bra OVER;
bra AGAIN;
OVER: }}
"""


def init(*counts: int) -> str:
    """mbarriers from byte 0 on, with these counts, known to the whole CTA."""
    inits = "".join(
        f"@%lead mbarrier.init.shared.b64 [%base+{8 * i}], {count};\n"
        for i, count in enumerate(counts)
    )
    return inits + "fence.mbarrier_init.release.cluster;\nbar.sync 0;\n"


def cluster_init(*counts: int) -> str:
    """As :func:`init`, known to the whole cluster."""
    return init(*counts) + "barrier.cluster.arrive.relaxed; barrier.cluster.wait;\n"


def only(warp: int, body: str) -> str:
    """``body`` for one warp."""
    return f"""
{{ .reg .pred %other;
setp.ne.u32 %other, %warp, {warp};
@%other bra SKIP;
{body}
SKIP: }}
"""


def thread(index: int, body: str) -> str:
    """``body`` for one thread; the others meet it behind it."""
    return f"""
{{ .reg .pred %other;
setp.ne.u32 %other, %thr, {index};
@%other bra SKIP;
{body}
SKIP: }}
"""


def run(
    body: str, arguments: Mapping[str, Any] | None = None, policy: str = "eager", **launch: Any
) -> Emulation:
    """Run ``body`` behind :data:`REGISTERS`, and end."""
    return run_ptx(REGISTERS + body + "\nret;", arguments, policy=policy, **launch)


def check(
    body: str,
    output: npt.NDArray[Any],
    expected: npt.NDArray[Any],
    arguments: Mapping[str, Any] | None = None,
    policies: tuple[str, ...] = POLICIES,
    **launch: Any,
) -> None:
    """Hold ``body``, which writes parameter ``out``, to ``expected`` and no finding, always."""
    blank = output.copy()
    for policy in policies:
        output[...] = blank
        emulation = run(body, {**(arguments or {}), "out": output}, policy, **launch)
        assert not emulation.findings, f"{policy}: {emulation.findings[0]}"
        np.testing.assert_array_equal(output.view(np.uint8), expected.view(np.uint8), policy)


def kinds(
    body: str, arguments: Mapping[str, Any] | None = None, **launch: Any
) -> dict[str, set[FindingKind]]:
    """The kinds of findings by policy."""
    return {
        policy: {f.kind for f in run(body, arguments, policy, **launch).findings}
        for policy in POLICIES
    }


def always(
    kind: FindingKind, body: str, arguments: Mapping[str, Any] | None = None, **launch: Any
) -> None:
    """Every policy has to notice ``kind``."""
    for policy, found in kinds(body, arguments, **launch).items():
        assert kind in found, f"{policy}: found {sorted(found) or 'nothing'}, wanted {kind}"


def message(body: str, arguments: Mapping[str, Any] | None = None, **launch: Any) -> str:
    """All findings of an eager run as text."""
    return "\n".join(map(str, run(body, arguments, **launch).findings))


def aligned(shape: int | tuple[int, ...], dtype: str, alignment: int = 128) -> npt.NDArray[Any]:
    """Zeros at an aligned address, as device memory is."""
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.zeros(count + alignment, np.uint8)
    shift = -raw.__array_interface__["data"][0] % alignment
    return raw[shift : shift + count].view(dtype).reshape(shape)


LOAD = "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes"
FENCE = "fence.proxy.async.shared::cta;"
COMMIT, WAIT_READ = "cp.async.bulk.commit_group;", "cp.async.bulk.wait_group.read 0;"

FILL = """
shl.b32 %r1, %thr, 2; add.u32 %r2, %r1, %base; mad.lo.u32 %r3, %thr, 3, 1;
st.shared.u32 [%r2+1024], %r3;
"""
"""Every thread's word, 3 * number + 1, to byte 1024 on."""
READ_OUT = """
shl.b32 %r1, %thr, 2; add.u32 %r2, %r1, %base; ld.shared.u32 %r3, [%r2+1024];
ld.param.u64 %rd1, [out]; cvt.u64.u32 %rd2, %r1; add.u64 %rd1, %rd1, %rd2;
st.global.u32 [%rd1], %r3;
"""
"""Words from byte 1024 on to ``out``, one a thread."""


def filled(count: int = 128) -> npt.NDArray[np.uint32]:
    """What :data:`FILL` writes."""
    return np.arange(count, dtype=np.uint32) * 3 + 1


def source(count: int = 128) -> npt.NDArray[np.uint32]:
    """Words to copy from."""
    data = aligned(count, "u4")
    data[:] = np.arange(count) * 7 + 5
    return data
