"""``fa4gen doctor``: what is here, what is missing, and how to get it."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from pathlib import Path

import typer

from fa4gen import __version__
from fa4gen.cli.machine import Machine, look
from fa4gen.cli.options import DbOption, JsonOption, examples
from fa4gen.cli.output import EXIT_FAILED, emit
from fa4gen.cli.session import open_store
from fa4gen.core.errors import ResourceError, StoreError
from fa4gen.core.paths import data_dir
from fa4gen.report import tables
from fa4gen.report.views import DoctorView, Finding, Health
from fa4gen.versions import CUTLASS_DSL, cutlass_dsl_note, installed

LIBRARIES = ("optuna", "sqlalchemy", "alembic", "jinja2", "numpy")


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command(epilog=examples("fa4gen doctor", "fa4gen doctor --json"))(doctor)


def doctor(db: DbOption = None, as_json: JsonOption = False) -> None:
    """Print what fa4gen found on this machine, what is missing, and how to get it.

    Exits with 1 when something is missing that fa4gen cannot work without; a GPU is not.
    """
    machine = look()
    findings = (*_software(machine), *_gpus(machine), *_paths(), *_database(db))
    missing = {finding.subject for finding in findings if finding.health is Health.MISSING}
    can_compile = not missing & {CUTLASS_DSL, "apache-tvm-ffi"}
    known_gpu = any(gpu.sku is not None for gpu in machine.gpus)
    view = DoctorView(
        findings,
        {
            "search with the cycle model (fa4gen tune)": "database" not in missing,
            "compile kernels": can_compile,
            "time kernels and run flash_attn_func": can_compile
            and known_gpu
            and "torch" not in missing,
        },
    )
    emit(view, tables.doctor(view), as_json=as_json)
    if missing:
        raise typer.Exit(EXIT_FAILED)


def _software(machine: Machine) -> Iterator[Finding]:
    yield Finding("fa4gen", Health.OK, f"{__version__} on Python {platform.python_version()}")
    note, dsl = cutlass_dsl_note(), installed(CUTLASS_DSL)
    if note is None:
        yield Finding(CUTLASS_DSL, Health.OK, f"{dsl}, tested")
    elif dsl is None:
        yield Finding(CUTLASS_DSL, Health.MISSING, "not installed", note)
    else:
        yield Finding(CUTLASS_DSL, Health.NOTE, f"{dsl}, not tested", note)
    yield _library("apache-tvm-ffi")
    yield _torch(machine)
    for name in LIBRARIES:
        yield _library(name)


def _library(name: str) -> Finding:
    version = installed(name)
    if version is None:
        return Finding(name, Health.MISSING, "not installed", f"pip install {name}")
    return Finding(name, Health.OK, version)


def _torch(machine: Machine) -> Finding:
    """torch by its metadata only: importing it takes seconds."""
    version = installed("torch")
    if version is None:
        return Finding("torch", Health.MISSING, "not installed", "pip install 'torch>=2.11'")
    if version.endswith("+cpu"):
        if machine.gpus:
            remedy = "install a CUDA build of torch; this one cannot use the GPU"
            return Finding("torch", Health.MISSING, f"{version}, CPU build", remedy)
        return Finding("torch", Health.OK, f"{version}, CPU build (enough without a GPU)")
    return Finding("torch", Health.OK, version)


def _gpus(machine: Machine) -> Iterator[Finding]:
    if not machine.gpus:
        remedy = "times are modelled here; run `fa4gen tune` on an H100 or H200 to measure"
        yield Finding("GPU", Health.NOTE, f"none ({machine.problem})", remedy)
        return
    yield Finding("driver", Health.OK, machine.gpus[0].driver)
    for gpu in machine.gpus:
        size = f"{gpu.sm_count} SMs, {gpu.memory_bytes / 2**30:.0f} GiB"
        if (sku := gpu.sku) is None:
            remedy = "add a TOML file to fa4gen/hardware/skus/, or name the nearest with FA4GEN_SKU"
            yield Finding(f"GPU {gpu.index}", Health.NOTE, f"{gpu.name}, {size}, unknown", remedy)
        else:
            yield Finding(f"GPU {gpu.index}", Health.OK, f"{gpu.name}, {size}: SKU {sku.name}")


def _paths() -> Iterator[Finding]:
    from fa4gen.compile.cache import default_cache_dir

    for name in ("templates", "search_spaces", "workloads", "tuning_db"):
        try:
            yield Finding(name, Health.OK, str(data_dir(name)))
        except ResourceError as error:
            yield Finding(name, Health.MISSING, "not found", str(error))
    cache = default_cache_dir()
    if _writable(cache):
        kernels = sum(1 for _ in cache.glob("artifacts/*/*/artifact.json"))
        yield Finding("cache", Health.OK, f"{cache} ({kernels} compiled kernels)")
    else:
        remedy = "make it writable, or point FA4GEN_CACHE_DIR at a folder that is"
        yield Finding("cache", Health.NOTE, f"{cache}, not writable", remedy)


def _writable(folder: Path) -> bool:
    """Whether ``folder`` can be written, or made where it will be; creates nothing."""
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    return nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)


def _database(db: str | None) -> Iterator[Finding]:
    try:
        with open_store(db, read_only=True) as store:
            rows = store.dispatch_rows()
            shipped = sum(1 for row in rows if row.origin.value == "shipped")
            found = f"{store.location}: {len(rows) - shipped} rows, {shipped} shipped with fa4gen"
            problems = store.check()
    except StoreError as error:
        remedy = "see `fa4gen db check`; --db or FA4GEN_DB names another one"
        yield Finding("database", Health.MISSING, str(error), remedy)
        return
    if problems:
        remedy = "see `fa4gen db check`"
        yield Finding("database", Health.NOTE, f"{found}; {len(problems)} problems", remedy)
    else:
        yield Finding("database", Health.OK, found)
