"""Instructions by which the lanes of a warp exchange values and agree: shuffles, votes, elections.

All wait for the living lanes that their membermask names. The deprecated forms without ``.sync``
are not known. Lanes may come with different masks, as long as these do not overlap: each set of
lanes is a team of its own.

Source: PTX ISA 9.1, sections 9.7.9.6 (shfl.sync), 9.7.13.2 (bar.warp.sync), 9.7.13.9 to .12
(vote.sync, match.sync, activemask, redux.sync) and 9.7.13.14 (elect.sync).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fa4gen.emulator.builder import LANES, Builder, Lanes
from fa4gen.emulator.findings import FindingKind
from fa4gen.emulator.registry import Op, Pipe, instruction
from fa4gen.emulator.warp import Mask, Signal, Wait, Warp
from fa4gen.numerics.minmax import max32, min32
from fa4gen.ptx.ir import Immediate, Operand, Pair, Sink

Teams: TypeAlias = "Callable[[Warp], Wait | tuple[Mask, ...]]"
"""Waits for the members, or says which active lanes work together."""
Sources: TypeAlias = tuple[npt.NDArray[np.int64], Mask]
"""The lane that each lane reads from, and whether it was in range."""

ALL = 0xFFFF_FFFF
_LANE = np.arange(LANES)
_BITS = np.uint32(1) << _LANE.astype(np.uint32)
_EVERYONE = (np.ones(LANES, bool),)
_NOUGHT, _FIRST = np.zeros(LANES, np.uint32), _LANE == 0
_SEGMENT_SHIFT = 8
_LOW5 = 31


@instruction("shfl.sync", pipe=Pipe.SHUFFLE, isa="9.7.9.6")
def shfl(b: Builder) -> Op:
    """Read a register of another lane."""
    mode = b.mods.one_of("up", "down", "bfly", "idx")
    if not mode or not b.mods.flag("b32"):
        b.fail("known with .up, .down, .bfly or .idx, and .b32")
    target, value, distance, clamp, members = b.expect(5)
    first, second = (target.first, target.second) if isinstance(target, Pair) else (target, Sink())
    slot, into, valid_into = b.src(value, 32), b.dst(first, 32), b.dst(second, 1)
    find, teams = _sources(b, mode, distance, clamp), _teams(b, members)

    def run(warp: Warp) -> Signal | None:
        found = teams(warp)
        if isinstance(found, Wait):
            return found
        lane, valid = find(warp)
        result = warp.regs[slot][lane]
        if found is not _EVERYONE:
            _check_sources(warp, found, lane)
        warp.write(into, result)
        warp.write(valid_into, valid)
        return None

    return run


@instruction("vote.sync", pipe=Pipe.SHUFFLE, isa="9.7.13.9")
def vote(b: Builder) -> Op:
    """Count, combine or compare a predicate over the lanes."""
    mode = b.mods.one_of("all", "any", "uni", "ballot")
    kind = b.mods.one_of("pred", "b32")
    if not mode or (kind == "b32") != (mode == "ballot") or not kind:
        b.fail("known as .all.pred, .any.pred, .uni.pred and .ballot.b32")
    target, source, members = b.expect(3)
    predicate, teams = b.predicate(source), _teams(b, members)
    if mode == "ballot":
        slot = b.dst(target, 32)
        return _per_team(teams, lambda warp: _bit(predicate(warp)), slot, np.uint32, _join)
    return _per_team(teams, predicate, b.dst(target, 1), np.bool_, _VERDICTS[mode])


@instruction("match.any.sync", pipe=Pipe.SHUFFLE, isa="9.7.13.10")
def match_any(b: Builder) -> Op:
    """Which lanes have the same value as this one."""
    target, read, teams = _match(b)
    slot = b.dst(target, 32)

    def run(warp: Warp) -> Signal | None:
        found = teams(warp)
        if isinstance(found, Wait):
            return found
        values = read(warp)
        equal = values[:, None] == values[None, :]
        together = np.zeros((LANES, LANES), bool)
        for team in found:
            together |= team[:, None] & team[None, :]
        warp.write(slot, _join(np.where(equal & together, _BITS, np.uint32(0)).T))
        return None

    return run


@instruction("match.all.sync", pipe=Pipe.SHUFFLE, isa="9.7.13.10")
def match_all(b: Builder) -> Op:
    """The members if all have the same value, else 0; a predicate says which."""
    target, read, teams = _match(b)
    first, second = (target.first, target.second) if isinstance(target, Pair) else (target, Sink())
    slot, agree_slot = b.dst(first, 32), b.dst(second, 1)

    def run(warp: Warp) -> Signal | None:
        found = teams(warp)
        if isinstance(found, Wait):
            return found
        values = read(warp)
        result, agree = np.zeros(LANES, np.uint32), np.zeros(LANES, bool)
        for team in found:
            mine = values[team]
            if (mine == mine[0]).all():
                result[team], agree[team] = _join(_BITS[team]), True
        warp.write(slot, result)
        warp.write(agree_slot, agree)
        return None

    return run


@instruction("activemask", pipe=Pipe.SHUFFLE, isa="9.7.13.11")
def activemask(b: Builder) -> Op:
    """Which lanes execute this."""
    if not b.mods.flag("b32"):
        b.fail("known as activemask.b32")
    (target,) = b.expect(1)
    slot = b.dst(target, 32)
    return lambda warp: warp.write(slot, np.full(LANES, _join(_BITS[warp.active()])))


@instruction("elect.sync", pipe=Pipe.SHUFFLE, isa="9.7.13.14")
def elect(b: Builder) -> Op:
    """One leader among the members: the lowest lane, where the ISA promises only some lane."""
    target, members = b.expect(2)
    if not isinstance(target, Pair):
        b.fail("got one destination, known with d|p")
    slot, leads_slot, teams = b.dst(target.first, 32), b.dst(target.second, 1), _teams(b, members)

    def run(warp: Warp) -> Signal | None:
        found = teams(warp)
        if isinstance(found, Wait):
            return found
        if found is _EVERYONE:
            warp.write(slot, _NOUGHT)
            warp.write(leads_slot, _FIRST)
            return None
        leader = np.zeros(LANES, np.uint32)
        for team in found:
            leader[team] = team.argmax()
        warp.write(slot, leader)
        warp.write(leads_slot, leader == _LANE)
        return None

    return run


@instruction("redux.sync", pipe=Pipe.SHUFFLE, isa="9.7.13.12")
def redux(b: Builder) -> Op:
    """Combine a register over the lanes."""
    operation = b.mods.one_of("add", "min", "max", "and", "or", "xor")
    kind = b.mods.type()
    magnitude, nan = b.mods.flag("abs"), b.mods.flag("NaN")
    if kind not in _REDUX_TYPES.get(operation, ()):
        b.fail(f"got {operation or 'no operation'} of type {kind or 'none'}")
    if (magnitude or nan) and kind != "f32":
        b.fail(".abs and .NaN belong to .f32")
    target, value, members = b.expect(3)
    slot, source, teams = b.dst(target, 32), b.src(value, 32), _teams(b, members)
    combine = _float_redux(operation, magnitude, nan) if kind == "f32" else _redux(operation, kind)
    return _per_team(teams, lambda warp: warp.regs[source], slot, np.uint32, combine)


@instruction("bar.warp.sync", pipe=Pipe.BARRIER, isa="9.7.13.2")
def warp_sync(b: Builder) -> Op:
    """Wait for the members; their accesses are one warp's, so there is nothing to order."""
    (members,) = b.expect(1)
    teams = _teams(b, members)

    def run(warp: Warp) -> Signal | None:
        found = teams(warp)
        return found if isinstance(found, Wait) else None

    return run


def _teams(b: Builder, operand: Operand) -> Teams:
    """What every ``.sync`` instruction begins with, for the membermask ``operand``."""
    if isinstance(operand, Immediate) and operand.value & ALL == ALL:

        def everyone(warp: Warp) -> Wait | tuple[Mask, ...]:
            return _EVERYONE if warp.mask is None else _gather(warp, np.full(LANES, ALL))

        return everyone
    slot = b.src(operand, 32)
    return lambda warp: _gather(warp, warp.regs[slot].astype(np.int64))


def _gather(warp: Warp, masks: npt.NDArray[np.int64]) -> Wait | tuple[Mask, ...]:
    """Wait for all members of the active lanes' masks.

    Raises:
        KernelFault: a lane that is not in its own mask, which is undefined.
    """
    active = warp.active()
    wanted = [int(mask) for mask in np.unique(masks[active])]
    members = reduce(lambda one, other: one | other, wanted)
    if (wait := warp.together(members)) is not None:
        return wait
    outside = active & ((masks >> _LANE & 1) == 0)
    if outside.any():
        lane = int(outside.argmax())
        raise warp.fault(
            f"membermask: got {int(masks[lane]):#010x} in lane {lane}, which is not a member"
        )
    teams = tuple(active & (masks == mask) for mask in wanted)
    for mask, team in zip(wanted, teams, strict=True):
        absent = warp.alive & ~team & ((mask >> _LANE & 1) == 1)
        if absent.any():
            warp.report(
                FindingKind.CONVERGENCE,
                f"membermask {mask:#010x}: lanes {np.flatnonzero(absent).tolist()} are members but "
                "do not execute this with the same mask",
            )
    return teams


def _per_team(
    teams: Teams,
    read: Callable[[Warp], Any],
    slot: int,
    dtype: type[np.generic],
    combine: Callable[[Any], Any],
) -> Op:
    """Give every lane what ``combine`` makes of the values that its team's lanes ``read``."""

    def run(warp: Warp) -> Signal | None:
        found = teams(warp)
        if isinstance(found, Wait):
            return found
        values = read(warp)
        if found is _EVERYONE:
            warp.write(slot, np.full(LANES, combine(values), dtype))
            return None
        result = np.zeros(LANES, dtype)
        for team in found:
            result[team] = combine(values[team])
        warp.write(slot, result)
        return None

    return run


def _sources(b: Builder, mode: str, distance: Operand, clamp: Operand) -> Callable[[Warp], Sources]:
    """Which lane each lane reads; computed once where both operands are literals."""
    near, far = b.reader(distance, 32), b.reader(clamp, 32)
    if isinstance(distance, Immediate) and isinstance(clamp, Immediate):
        offsets, limits = np.full(LANES, distance.value), np.full(LANES, clamp.value)
        known = _source_lanes(mode, offsets, limits)
        return lambda warp: known
    return lambda warp: _source_lanes(mode, near(warp).astype(np.int64), far(warp).astype(np.int64))


def _source_lanes(
    mode: str, distance: npt.NDArray[np.int64], clamp: npt.NDArray[np.int64]
) -> Sources:
    """The rule of PTX ISA 9.7.9.6: segments of the warp, and a limit in each."""
    distance, segment = distance & _LOW5, clamp >> _SEGMENT_SHIFT & _LOW5
    first = _LANE & segment
    limit = first | (clamp & _LOW5 & ~segment)
    if mode == "up":
        lane = _LANE - distance
        valid = lane >= limit
    else:
        lane = {
            "down": _LANE + distance,
            "bfly": _LANE ^ distance,
            "idx": first | (distance & ~segment),
        }[mode]
        valid = lane <= limit
    return np.where(valid, lane, _LANE), valid


def _check_sources(warp: Warp, teams: tuple[Mask, ...], lane: npt.NDArray[np.int64]) -> None:
    """Report lanes that read one outside of their team, whose value is undefined."""
    for team in teams:
        lost = team & ~team[lane]
        if lost.any():
            at = int(lost.argmax())
            warp.report(
                FindingKind.CONVERGENCE,
                f"shfl.sync: lane {at} reads lane {int(lane[at])}, which does not take part",
            )


def _match(b: Builder) -> tuple[Operand, Callable[[Warp], Lanes], Teams]:
    width = {"b32": 32, "b64": 64}.get(b.mods.one_of("b32", "b64"))
    if width is None:
        b.fail("known with .b32 and .b64")
    target, value, members = b.expect(3)
    return target, b.reader(value, width), _teams(b, members)


def _bit(predicate: Mask) -> npt.NDArray[np.uint32]:
    return np.where(predicate, _BITS, np.uint32(0))


def _join(bits: npt.NDArray[np.uint32]) -> np.uint32:
    joined: np.uint32 = np.bitwise_or.reduce(bits)
    return joined


_VERDICTS: dict[str, Callable[[Mask], bool]] = {
    "all": lambda votes: bool(votes.all()),
    "any": lambda votes: bool(votes.any()),
    "uni": lambda votes: bool(votes.all() or not votes.any()),
}

_REDUX_TYPES = {
    "add": ("u32", "s32"),
    **dict.fromkeys(("min", "max"), ("u32", "s32", "f32")),
    **dict.fromkeys(("and", "or", "xor"), ("b32",)),
}
_REDUCERS: dict[str, Callable[..., Any]] = {
    "add": np.add.reduce,
    "min": np.minimum.reduce,
    "max": np.maximum.reduce,
    "and": np.bitwise_and.reduce,
    "or": np.bitwise_or.reduce,
    "xor": np.bitwise_xor.reduce,
}


def _redux(operation: str, kind: str) -> Callable[[Any], Any]:
    reducer, seen = _REDUCERS[operation], np.dtype(np.int32 if kind == "s32" else np.uint32)
    # Without the type, NumPy would add in 64 bits.
    return lambda values: reducer(values.view(seen), dtype=seen).astype(seen).view(np.uint32)


def _float_redux(operation: str, magnitude: bool, nan: bool) -> Callable[[Any], Any]:
    choose = min32 if operation == "min" else max32

    def combine(values: Any) -> Any:
        numbers = values.view(np.float32)
        if magnitude:
            numbers = np.abs(numbers)
        total = numbers[:1]
        for at in range(1, len(numbers)):
            total = choose(total, numbers[at : at + 1], nan)
        return choose(total, total, nan).view(np.uint32)[0]

    return combine
