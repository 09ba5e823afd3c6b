"""The explanation of a selection, against the real model, space and template."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from runtime_fakes import configs, problem, row

from fa4gen.codegen import template_hash
from fa4gen.core.errors import NoFeasibleKernel, StoreError, UnknownName
from fa4gen.core.outcome import Source
from fa4gen.db import TuningStore
from fa4gen.hardware import load_sku
from fa4gen.runtime import Rung, RuntimeSettings, explain
from fa4gen.runtime.explanation import current_template
from fa4gen.runtime.tables import load_rows
from fa4gen.space import space_for

NEAR = configs(4)[3]


def test_an_exact_row_is_explained_with_its_time() -> None:
    found = explain(problem(), "h200", rows=[row(problem(), NEAR)], settings=RuntimeSettings())
    assert found.selection.rung is Rung.EXACT
    assert found.measured_us == 100.0
    assert found.default == space_for("sm90").default(problem().signature)
    assert found.differences["tile_n"] == (NEAR.tile_n, found.default.tile_n)
    text = "\n".join(found.lines())
    assert "100.0 us, gain over the default 1.050 (1.040 to 1.060, n=31)" in text
    assert f"tile_n={NEAR.tile_n} (default {found.default.tile_n})" in text


def test_a_time_of_another_shape_or_of_a_model_is_not_this_shapes_measurement() -> None:
    other = explain(problem(seqlen_q=1100), "h200", rows=[row(problem(), NEAR)])
    assert other.selection.rung is Rung.BUCKET
    assert other.measured_us is None
    modelled = explain(problem(), "h200", rows=[row(problem(), NEAR, source=Source.MODELLED)])
    assert modelled.measured_us is None


def test_an_explanation_is_plain_json() -> None:
    far = row(problem(seqlen_q=1, seqlen_k=1), NEAR)
    found = explain(problem(), load_sku("h200"), rows=[far])
    data = json.loads(json.dumps(found.to_dict()))
    assert data["rung"] == "model"
    assert data["rejected"][0]["rung"] == "bucket"
    assert data["config_id"] == found.selection.config.config_id
    assert any(line.startswith("rejected") for line in found.lines())


def test_head_dims_are_rounded_as_in_a_call() -> None:
    found = explain(problem(head_dim=100), "h200", rows=[row(problem(head_dim=104), NEAR)])
    assert found.problem == problem(head_dim=104)
    assert found.selection.rung is Rung.EXACT


def test_an_unknown_sku_is_named() -> None:
    with pytest.raises(UnknownName, match="h200"):
        explain(problem(), "h201", rows=[])


def test_the_environment_decides_without_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FA4GEN_REQUIRE_EXACT", "1")
    with pytest.raises(NoFeasibleKernel, match="FA4GEN_REQUIRE_EXACT"):
        explain(problem(), "h200", rows=[])


def test_the_template_is_that_of_the_arch() -> None:
    assert current_template(load_sku("h200")) == template_hash("sm90")
    assert current_template(load_sku("b200")) == template_hash("sm100")
    assert current_template(load_sku("b300")) == template_hash("sm100")


def test_rows_come_from_the_users_table() -> None:
    asked = problem(head_dim=64, batch=3, seqlen_q=777)
    with TuningStore.open() as store:
        stored = row(asked, NEAR)
        store.set_winner(store.record(asked, NEAR, stored.evaluation, stored.policy))
    found = explain(asked, "h200")
    assert found.selection.rung is Rung.EXACT
    assert found.selection.config == NEAR
    assert any("template" in note for note in found.selection.notes)


def test_a_broken_table_costs_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken.sqlite"
    broken.write_text("this is not a database, and far from one " * 100)
    monkeypatch.setenv("FA4GEN_DB", str(broken))
    with pytest.raises(StoreError), TuningStore.open(read_only=True):
        pass
    with pytest.warns(RuntimeWarning, match=r"broken\.sqlite.*without your own table"):
        load_rows()
