"""Fences, and instructions that only take time or talk to tools.

Source: PTX ISA 9.1, sections 9.7.13.4 (membar, fence), 9.7.13.13 (griddepcontrol), 9.7.19.1 to .3
(brkpt, nanosleep, pmevent).
"""

from __future__ import annotations

from fa4gen.emulator.access import SCOPES
from fa4gen.emulator.builder import Builder
from fa4gen.emulator.ordering import fence as order_fence
from fa4gen.emulator.ordering import fence_inits
from fa4gen.emulator.registry import Op, Pipe, instruction
from fa4gen.emulator.warp import Warp

_PROXY_SPACES = ("global", "shared::cta", "shared::cluster")


@instruction("fence", pipe=Pipe.NONE, isa="9.7.13.4")
def fence(b: Builder) -> Op:
    """Order the thread's accesses: with strong accesses around it, a release or an acquire."""
    semantics = b.mods.one_of("sc", "acq_rel", "acquire", "release", default="acq_rel")
    restricted = b.mods.one_of(
        "sync_restrict::shared::cta", "sync_restrict::shared::cluster", "mbarrier_init"
    )
    _take_scope(b)
    b.expect(0)
    if restricted == "mbarrier_init":
        return fence_inits
    acquires, releases = semantics != "release", semantics != "acquire"
    return lambda warp: order_fence(warp, acquires, releases)


@instruction("membar", pipe=Pipe.NONE, isa="9.7.13.4")
def membar(b: Builder) -> Op:
    """``fence.sc`` under its old name."""
    if not b.mods.one_of("cta", "gl", "sys"):
        b.fail("known as membar.cta, membar.gl and membar.sys")
    b.expect(0)
    return order_fence


@instruction("fence.proxy.async", "membar.proxy.async", pipe=Pipe.NONE, isa="9.7.13.4")
def proxy_async(b: Builder) -> Op:
    """Let the asynchronous proxy see the ordinary writes that the thread knows of.

    Limited to global memory it does nothing here, since only shared memory is checked.
    """
    space = b.mods.one_of(*_PROXY_SPACES)
    b.expect(0)
    return _nothing if space == "global" else _fence_proxy


@instruction("fence.proxy.async::generic", pipe=Pipe.NONE, isa="9.7.13.4")
def proxy_async_one_way(b: Builder) -> Op:
    """The halves of a proxy fence at the two sides of a cluster's barrier; each counts as whole."""
    if not b.mods.one_of("acquire", "release") or not b.mods.one_of(
        "sync_restrict::shared::cta", "sync_restrict::shared::cluster"
    ):
        b.fail("known with .acquire or .release, and .sync_restrict")
    _take_scope(b)
    b.expect(0)
    return _fence_proxy


@instruction("fence.proxy.alias", "membar.proxy.alias", pipe=Pipe.NONE, isa="9.7.13.4")
def proxy_alias(b: Builder) -> Op:
    """No memory has two addresses here."""
    b.expect(0)
    return _nothing


@instruction("fence.proxy.tensormap::generic", pipe=Pipe.NONE, isa="9.7.13.4")
def proxy_tensormap(b: Builder) -> Op:
    """Tensor maps are read from memory at each use, so there is nothing to make visible."""
    if not b.mods.one_of("acquire", "release"):
        b.fail("known with .acquire and .release")
    _take_scope(b)
    b.expect(0, 2)
    return _nothing


@instruction("griddepcontrol", pipe=Pipe.CONTROL, isa="9.7.13.13")
def griddepcontrol(b: Builder) -> Op:
    """Nothing to wait for: launches run one after the other."""
    if not b.mods.one_of("launch_dependents", "wait"):
        b.fail("known as .launch_dependents and .wait")
    b.expect(0)
    return _nothing


@instruction("nanosleep", pipe=Pipe.CONTROL, isa="9.7.19.2")
def nanosleep(b: Builder) -> Op:
    """Time does not pass here."""
    if not b.mods.flag("u32"):
        b.fail("known as nanosleep.u32")
    (duration,) = b.expect(1)
    b.src(duration, 32)
    return _nothing


@instruction("pmevent", pipe=Pipe.NONE, isa="9.7.19.3")
def pmevent(b: Builder) -> Op:
    """Counters that no kernel can read."""
    b.mods.ignore("mask")
    b.expect(1)
    return _nothing


@instruction("brkpt", pipe=Pipe.CONTROL, isa="9.7.19.1")
def brkpt(b: Builder) -> Op:
    """Without a debugger, an error."""
    b.expect(0)

    def run(warp: Warp) -> None:
        raise warp.fault("brkpt: the kernel stopped itself for a debugger")

    return run


def _take_scope(b: Builder) -> None:
    if not b.mods.one_of(*SCOPES):
        b.fail(f"got no scope, known: {', '.join(SCOPES)}")


def _nothing(_: Warp) -> None:
    return None


def _fence_proxy(warp: Warp) -> None:
    warp.agent.fence_proxy()
