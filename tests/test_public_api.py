"""What ``import fa4gen`` offers, and what it must not cost."""

from __future__ import annotations

import subprocess
import sys

import pytest

import fa4gen

HEAVY = ("torch", "cutlass", "optuna", "sqlalchemy", "jinja2", "plotly", "typer", "rich", "numpy")


def loaded_by(statement: str) -> list[str]:
    """The heavy packages that a fresh interpreter has loaded after ``statement``."""
    code = f"import sys\n{statement}\nprint(*[n for n in {HEAVY!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_import_loads_nothing_heavy() -> None:
    assert loaded_by("import fa4gen") == []


def test_the_command_line_loads_neither_torch_nor_cutlass() -> None:
    assert not {"torch", "cutlass"} & set(loaded_by("import fa4gen.cli.app"))


def test_a_workload_is_read_before_optuna_is_loaded() -> None:
    statement = (
        "import fa4gen.tune as t; t.load_workload('quick'); t.TuneSettings(t.effort_named('full'))"
    )
    assert loaded_by(statement) == []
    assert "optuna" in loaded_by("from fa4gen.tune import tune")


def test_public_names_are_sorted_and_exist() -> None:
    assert fa4gen.__all__ == sorted(fa4gen.__all__)
    for name in fa4gen.__all__:
        assert getattr(fa4gen, name) is not None
    assert set(fa4gen.__all__) <= set(dir(fa4gen))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'flash_atn_func'"):
        _ = fa4gen.flash_atn_func
