"""What is tried before the sampler has a say, and what of it does not wait for the study."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fa4gen.core.config import KernelConfig
from fa4gen.core.problem import KernelSignature
from fa4gen.feasibility import canonicalise, check
from fa4gen.hardware import Arch
from fa4gen.tune.knobs import Knobs
from fa4gen.tune.proposer import Memory
from fa4gen.tune.study import Wish

BEFORE_STUDY = 2
"""Guesses that are evaluated while the study is opened. Only the others are in the study before
their evaluation, where another tuner of the same problem sees them."""


@dataclass(frozen=True)
class Guesses:
    """Configurations to try, in order."""

    first: tuple[Wish, ...]
    """Canonical, so they can be evaluated as they are."""
    others: tuple[Wish, ...]
    """To be enqueued."""


def guesses(
    seeds: Iterable[tuple[str, KernelConfig]],
    knobs: Knobs,
    target: tuple[KernelSignature, Arch],
    memory: Memory,
) -> Guesses:
    """Those of the seeds, as (origin, configuration), that can be tried and were not.

    A canonical form may lie beside the lists of the knobs, so that a study cannot be told of it:
    then the seed itself is enqueued.
    """
    signature, arch = target
    wishes: dict[str, tuple[Wish, bool]] = {}
    for origin, seed in seeds:
        config = canonicalise(signature, seed, arch)
        if memory.get(config) is not None or not check(signature, config, arch):
            continue
        named = knobs.params(config) is not None
        wish = Wish(config if named else seed, origin)
        wishes.setdefault(config.config_id, (wish, named))
    first = tuple(wish for wish, named in list(wishes.values())[:BEFORE_STUDY] if named)
    return Guesses(first, tuple(wish for wish, _ in wishes.values() if wish not in first))
