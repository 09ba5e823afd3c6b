"""Search strategies by name; a new one is a function and a line in :data:`SAMPLERS`."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import optuna
from optuna.samplers import BaseSampler

from fa4gen.core.errors import MissingDependency, UnknownName

SamplerFactory = Callable[[int, int], BaseSampler]
"""Makes a sampler from (seed, startup trials)."""


def _tpe(seed: int, startup_trials: int) -> BaseSampler:
    # multivariate and constant_liar are Optuna 5's defaults; stated since the tuner relies on
    # the second: it keeps the look-ahead asks apart.
    return optuna.samplers.TPESampler(
        seed=seed, n_startup_trials=startup_trials, multivariate=True, constant_liar=True
    )


def _random(seed: int, _startup_trials: int) -> BaseSampler:
    return optuna.samplers.RandomSampler(seed=seed)


def _gp(seed: int, startup_trials: int) -> BaseSampler:
    _need("gp", "scipy", "torch")
    return optuna.samplers.GPSampler(seed=seed, n_startup_trials=startup_trials)


def _nsga2(seed: int, startup_trials: int) -> BaseSampler:
    # A search of some dozens of trials has no use for Optuna's population of 50.
    return optuna.samplers.NSGAIISampler(seed=seed, population_size=max(4, startup_trials))


def _cmaes(seed: int, startup_trials: int) -> BaseSampler:
    # Categories are beyond it: Optuna draws them at random beside it, and would say so each time.
    _need("cmaes", "cmaes")
    return optuna.samplers.CmaEsSampler(
        seed=seed, n_startup_trials=startup_trials, warn_independent_sampling=False
    )


def _need(sampler: str, *packages: str) -> None:
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise MissingDependency(
                f"sampler {sampler!r}: package {package} is not installed; install it, or use 'tpe'"
            )


SAMPLERS: dict[str, SamplerFactory] = {
    "tpe": _tpe,
    "random": _random,
    "gp": _gp,
    "nsga2": _nsga2,
    "cmaes": _cmaes,
}
"""Every search strategy by name."""


def make_sampler(name: str, seed: int, startup_trials: int) -> BaseSampler:
    """The sampler of this name; the same seed gives the same asks in a sequential search.

    Raises:
        UnknownName: not in :data:`SAMPLERS`.
        MissingDependency: it needs a package that is not installed.
    """
    try:
        factory = SAMPLERS[name]
    except KeyError:
        raise UnknownName("sampler", name, SAMPLERS) from None
    return factory(seed, startup_trials)
