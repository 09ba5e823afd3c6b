"""Rendering a stand-in template, and every way a template can be wrong."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import pytest

from fa4gen.codegen import CONTEXT_NAMES, render, template_hash
from fa4gen.core.config import KernelConfig
from fa4gen.core.dtypes import DType
from fa4gen.core.errors import RenderError, ResourceError, UnknownName
from fa4gen.core.problem import KernelSignature
from fa4gen.hardware import load_arch

STAND_IN = Path(__file__).parent / "data" / "templates"
SIGNATURE = KernelSignature(DType.BF16, head_dim=72, head_dim_v=64, causal=True, qhead_per_kvhead=4)
ARCH = load_arch("sm90")
BUILD = '\ndef build(options: str = ""):\n    return options\n'


@pytest.fixture
def templates(tmp_path: Path) -> Path:
    """A copy of the stand-in that a test may break."""
    return Path(shutil.copytree(STAND_IN, tmp_path / "templates"))


def constants(source: str) -> dict[str, object]:
    """Values of the ``NAME = literal`` lines at the top level of a module."""
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                found[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:
                continue
    return found


def write(templates: Path, text: str, name: str = "fwd.py.j2") -> None:
    (templates / "sm90" / name).write_text(text + BUILD)


def rendered(templates: Path, config: KernelConfig | None = None) -> str:
    return render(SIGNATURE, config or KernelConfig(), ARCH, templates=templates).source


def test_knobs_and_context_reach_the_module() -> None:
    config = KernelConfig(tile_m=192, tile_n=64, scheduler="persistent", exp2_poly_degree=4)
    got = constants(render(SIGNATURE, config, ARCH, templates=STAND_IN).source)
    assert got["NUM_THREADS"] == 192
    assert got["SMEM_BYTES"] == 1024
    assert got["SCHEDULER"] == "persistent"
    assert got["TARGET"] == "sm_90a"
    assert len(got["COEFFICIENTS"]) == 5


def test_every_documented_name_is_passed(templates: Path) -> None:
    write(templates, "\n".join(f"{name} = {{{{ {name} | py }}}}" for name in CONTEXT_NAMES))
    got = constants(rendered(templates))
    assert got == got | {
        "dtype_name": "BFloat16",
        "head_dim": 72,
        "head_dim_padded": 80,
        "head_dim_v": 64,
        "head_dim_v_padded": 64,
        "causal": True,
        "qhead_per_kvhead": 4,
        "target": "sm_90a",
    }
    assert KernelConfig().config_id in str(got["provenance"])
    assert "\n" not in str(got["provenance"])


def test_same_request_gives_same_text_and_name() -> None:
    first = render(SIGNATURE, KernelConfig(), ARCH, templates=STAND_IN)
    second = render(SIGNATURE, KernelConfig(), ARCH, templates=STAND_IN)
    other = render(SIGNATURE, KernelConfig(tile_m=64), ARCH, templates=STAND_IN)
    assert first == second
    assert first.module_name.isidentifier()
    assert other.module_name != first.module_name


def test_home_decides_where_templates_are(templates: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(templates, "HERE = 'home'")
    monkeypatch.setenv("FA4GEN_HOME", str(templates.parent))
    assert "HERE = 'home'" in render(SIGNATURE, KernelConfig(), ARCH).source


def test_tags_leave_no_trace(templates: Path) -> None:
    write(templates, "if True:\n    {% if causal %}\n    A = 1\n    {% endif %}\n    B = 2")
    assert rendered(templates).startswith("if True:\n    A = 1\n    B = 2\n")


def test_hash_follows_the_template_and_its_includes(templates: Path) -> None:
    before = template_hash("sm90", templates=templates)
    assert before == template_hash("sm90", templates=STAND_IN)
    body = templates / "sm90" / "body.py.j2"
    body.write_text(body.read_text() + "# changed\n")
    after = template_hash("sm90", templates=templates)
    assert after != before
    manifest = templates / "sm90" / "fwd.toml"
    manifest.write_text(manifest.read_text().replace("Stand-in", "Another"))
    assert template_hash("sm90", templates=templates) == after
    assert render(SIGNATURE, KernelConfig(), ARCH, templates=templates).template_hash == after


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A = 1\n{% if causal %}\nB = 2", r"sm90/fwd\.py\.j2, line \d: .*endif"),
        ("A = 1\nB = {{ tile_k }}", r"sm90/fwd\.py\.j2, line 2: 'tile_k' is undefined"),
        ("{% if not_passed %}\n{% endif %}", r"line 1: 'not_passed' is undefined"),
        ("A = {{ regs_consumer }}", r"'regs_consumer' is undefined; allowed: the knobs"),
        ("A = {{ 1 // (head_dim - 72) }}", r"line 1: ZeroDivisionError"),
        ("A = {{ [tile_m] | py }}", r"line 1: RenderError: filter py: got list"),
        ("A = {{ tile_m | no_such_filter }}", r"line 1: No filter named 'no_such_filter'"),
        ("{% include 'sm90/gone.py.j2' %}", r"got include 'sm90/gone\.py\.j2', which is not"),
        ("{% include target %}", r"an include whose name is computed"),
        ("A = 1\nB = = 2", r"not Python: invalid syntax at its line 2: 'B = = 2'"),
        ("A = (", r"rendered text is not Python"),
    ],
)
def test_broken_template_is_a_render_error(templates: Path, text: str, message: str) -> None:
    write(templates, text)
    with pytest.raises(RenderError, match=message):
        rendered(templates)


def test_error_in_an_include_names_the_include(templates: Path) -> None:
    write(templates, "A = 1\n\nB = {{ tile_k }}", "body.py.j2")
    with pytest.raises(RenderError, match=r"sm90/body\.py\.j2, line 3: 'tile_k' is undefined"):
        rendered(templates)
    write(templates, "{% if %}", "body.py.j2")
    with pytest.raises(RenderError, match=r"sm90/body\.py\.j2, line 1"):
        rendered(templates)


def test_module_without_build_is_refused(templates: Path) -> None:
    (templates / "sm90" / "fwd.py.j2").write_text("def compile():\n    pass\n")
    with pytest.raises(RenderError, match=r"functions compile, allowed: one that defines build"):
        rendered(templates)


def test_unknown_template_lists_the_known_ones() -> None:
    with pytest.raises(UnknownName, match=r"'sm90/bwd\.py\.j2', known: .*sm90/fwd\.py\.j2"):
        render(SIGNATURE, KernelConfig(), ARCH, direction="bwd", templates=STAND_IN)


@pytest.mark.parametrize(
    ("old", "new", "error", "message"),
    [
        ('"tile_m", ', '"tile_k", ', UnknownName, "tile_k"),
        ('"tile_m", ', '"tile_n", ', ResourceError, "twice"),
        ('arch = "sm90"', 'arch = "sm100"', ResourceError, "allowed: 'sm90'"),
        ('arch = "sm90"', 'arch = "sm90"\nextra = 1', ResourceError, "extra: int"),
        ('arch = "sm90"', "arch = 90", ResourceError, "arch: int"),
        ("knobs = [", "knobs = [[", ResourceError, "not TOML"),
    ],
)
def test_manifest_is_strict(
    templates: Path, old: str, new: str, error: type[Exception], message: str
) -> None:
    manifest = templates / "sm90" / "fwd.toml"
    manifest.write_text(manifest.read_text().replace(old, new))
    with pytest.raises(error, match=message):
        rendered(templates)
    manifest.unlink()
    with pytest.raises(ResourceError, match="not found"):
        rendered(templates)
