"""The rules of each kernel family, and the verdict made of all of them."""

from __future__ import annotations

from fa4gen.core.config import KNOB_NAMES, KernelConfig
from fa4gen.core.errors import UnknownName
from fa4gen.core.problem import KernelSignature
from fa4gen.core.verdict import Reason, Verdict
from fa4gen.feasibility import sm90_rules, sm100_rules
from fa4gen.feasibility.common import Family, Rule
from fa4gen.hardware import Arch, list_archs, load_arch

_FAMILIES: dict[str, Family] = {"sm90": sm90_rules.FAMILY, "sm100": sm100_rules.FAMILY}


def check(signature: KernelSignature, config: KernelConfig, arch: Arch) -> Verdict:
    """Whether ``config`` may run ``signature`` on ``arch``, with all reasons why not."""
    family = _FAMILIES.get(arch.family)
    if family is None:
        return Verdict((_no_kernel(arch),))
    return Verdict.of(each(signature, config, arch) for each in family.rules)


def rules(arch: Arch) -> tuple[Rule, ...]:
    """The rules of an arch's kernel.

    Raises:
        UnknownName: no kernel exists for this arch.
    """
    return _family(arch).rules


def rule_knobs(arch: Arch) -> tuple[str, ...]:
    """Knobs that a verdict on a canonical configuration of an arch's kernel may depend on.

    Not those of which only rules speak that :func:`canonicalise` repairs: a search then multiplies
    what is feasible by their values, instead of asking for each combination.

    Raises:
        UnknownName: no kernel exists for this arch.
    """
    read = {knob for each in _family(arch).rules if not each.repaired for knob in each.reads}
    return tuple(name for name in KNOB_NAMES if name in read)


def derived_knobs(arch: Arch) -> tuple[str, ...]:
    """Those of :func:`rule_knobs` whose canonical value follows from the others.

    Raises:
        UnknownName: no kernel exists for this arch.
    """
    return _family(arch).derived_knobs


def smem_bytes(signature: KernelSignature, config: KernelConfig, arch: Arch) -> int:
    """Dynamic shared memory of one CTA, in bytes, barriers included.

    Compare with ``arch.smem_per_cta_bytes`` through :func:`fa4gen.feasibility.check` only.

    Raises:
        UnknownName: no kernel exists for this arch, so nothing is known of its layout.
    """
    return sum(_family(arch).smem_buffers(signature, config).values())


def num_threads(config: KernelConfig, arch: Arch) -> int:
    """Threads of one CTA.

    Raises:
        UnknownName: no kernel exists for this arch.
    """
    return _family(arch).num_threads(config)


def rows_per_cta(config: KernelConfig, arch: Arch) -> int:
    """Query rows of one CTA.

    Raises:
        UnknownName: no kernel exists for this arch.
    """
    return _family(arch).rows_per_cta(config)


def l2_section_bytes(config: KernelConfig, arch: Arch) -> int:
    """Bytes of K and V that the tiles in flight should share in the L2.

    Raises:
        UnknownName: no kernel exists for this arch.
    """
    return _family(arch).l2_section_bytes(config)


def ctas_per_sm(signature: KernelSignature, config: KernelConfig, arch: Arch) -> int:
    """CTAs that share the registers of an SM.

    Raises:
        UnknownName: no kernel exists for this arch.
    """
    return _family(arch).ctas_per_sm(signature, config, arch)


def supported_archs() -> tuple[str, ...]:
    """Names of the architectures that have rules, and so may have kernels."""
    return tuple(name for name in list_archs() if load_arch(name).family in _FAMILIES)


def _family(arch: Arch) -> Family:
    try:
        return _FAMILIES[arch.family]
    except KeyError:
        raise UnknownName("arch with a known kernel layout", arch.name, supported_archs()) from None


def _no_kernel(arch: Arch) -> Reason:
    message = (
        f"arch: got {arch.name}, allowed: {', '.join(supported_archs())}; "
        f"no template is written for {arch.name}"
    )
    return Reason("arch", message, 1.0)
