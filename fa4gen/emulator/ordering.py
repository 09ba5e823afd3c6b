"""What strong memory operations and fences let warps know of each other.

A release writes a word together with all that its warp knows; who reads the word by an acquire
knows that too. A fence makes releases of the relaxed writes after it, and acquires of the relaxed
reads before it. Scopes are taken to be wide enough.

Source: PTX ISA 9.1, sections 8.7 (patterns of release and acquire, release sequences) and 9.7.13.4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from fa4gen.emulator.clocks import Vector
    from fa4gen.emulator.memory import Block, Offsets
    from fa4gen.emulator.warp import Warp

_WORD = 4
_GIVES, _TAKES = "fenced release", "fenced acquire"
_INITS = "initialised mbarriers"


@dataclass(frozen=True, slots=True)
class Order:
    """The semantics of one memory operation.

    Attributes:
        strong: Anything but ``.weak``: it may meet another strong one without being a race.
    """

    strong: bool = False
    acquires: bool = False
    releases: bool = False


WEAK, RELAXED = Order(), Order(strong=True)
ORDERS = {
    "weak": WEAK,
    "relaxed": RELAXED,
    "volatile": RELAXED,
    "acquire": Order(strong=True, acquires=True),
    "release": Order(strong=True, releases=True),
    "acq_rel": Order(strong=True, acquires=True, releases=True),
}
"""By the modifier that names them; a volatile access is a relaxed one (PTX ISA 9.1, 8.4)."""


def observe(warp: Warp, block: Block, offsets: Offsets, order: Order) -> None:
    """A strong read of the words at ``offsets`` of ``block``."""
    words = warp.cta.cluster.clocks.words
    if not words:
        return
    for word in _words(block, offsets):
        vector = words.get(word)
        if vector is None:
            continue
        if order.acquires:
            warp.agent.acquire(vector)
        else:
            warp.state[_TAKES] = _joined(warp.state.get(_TAKES), vector)


def publish(
    warp: Warp, block: Block, offsets: Offsets, order: Order, adds_to: bool = False
) -> None:
    """A strong write of the words at ``offsets`` of ``block``.

    Args:
        adds_to: Whether it is an atomic operation, which carries earlier releases on.
    """
    words = warp.cta.cluster.clocks.words
    given: Vector | None = warp.agent.release() if order.releases else warp.state.get(_GIVES)
    if given is None and (adds_to or not words):
        return
    joined: dict[int, Vector | None] = {}
    for word in _words(block, offsets):
        earlier = words.get(word) if adds_to else None
        if id(earlier) not in joined:
            joined[id(earlier)] = _joined(earlier, given)
        vector = joined[id(earlier)]
        if vector is None:
            words.pop(word, None)
        else:
            words[word] = vector


def fence(warp: Warp, acquires: bool = True, releases: bool = True) -> None:
    """``fence.acq_rel`` and its one-sided forms."""
    if acquires:
        warp.agent.acquire(warp.state.pop(_TAKES, None))
    if releases:
        warp.state[_GIVES] = warp.agent.release()


def initialised(warp: Warp, component: int, clock: int) -> None:
    """The warp has initialised the mbarrier of that clock component."""
    inits = warp.state.get(_INITS)
    if inits is None:
        inits = warp.state[_INITS] = warp.cta.cluster.clocks.zeros()
    inits[component] = clock


def fence_inits(warp: Warp) -> None:
    """``fence.mbarrier_init``: a releasing fence for the mbarriers the warp has initialised."""
    inits = warp.state.pop(_INITS, None)
    if inits is not None:
        warp.state[_GIVES] = _joined(warp.state.get(_GIVES), inits)


def fenced(warp: Warp) -> Vector | None:
    """What a relaxed arrival at a barrier hands on: what the last releasing fence covers."""
    vector: Vector | None = warp.state.get(_GIVES)
    return vector


def heard(warp: Warp, vector: Vector) -> None:
    """A relaxed wait has seen what releases ``vector``; the next acquiring fence takes it over."""
    warp.state[_TAKES] = _joined(warp.state.get(_TAKES), vector)


def _words(block: Block, offsets: Offsets) -> list[int]:
    found: list[int] = np.unique(offsets // _WORD).tolist()
    return [block.base + _WORD * word for word in found]


def _joined(first: Vector | None, second: Vector | None) -> Vector | None:
    """Both; one of them itself where it knows all, so that words share vectors."""
    if first is None or first is second:
        return second
    if second is None or (first >= second).all():
        return first
    return second if (second >= first).all() else np.maximum(first, second)
