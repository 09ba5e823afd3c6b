"""Facts about machines, as data: one TOML file per arch and per SKU, every number with a source."""

from fa4gen.hardware.arch import Arch, list_archs, load_arch
from fa4gen.hardware.sku import Sku, list_skus, load_sku, sibling_skus, sku_for_gpu

__all__ = [
    "Arch",
    "Sku",
    "list_archs",
    "list_skus",
    "load_arch",
    "load_sku",
    "sibling_skus",
    "sku_for_gpu",
]
