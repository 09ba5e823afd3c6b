"""The cache on disk: intact or a miss, whatever happens to it."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import pytest

from fa4gen.codegen import GeneratedKernel
from fa4gen.compile import ArtifactCache, CompiledKernel, artifact_key, default_cache_dir
from fa4gen.compile import artifact as artifact_module

KEY = "0123456789abcdef"


@pytest.fixture
def cache(tmp_path: Path) -> ArtifactCache:
    return ArtifactCache(tmp_path / "cache")


def test_what_was_put_is_found(cache: ArtifactCache, compiled: CompiledKernel) -> None:
    assert cache.get(KEY) is None
    put = cache.put(KEY, compiled)
    assert ArtifactCache(cache.root).get(KEY) == put
    assert put.object_path.read_bytes() == compiled.object_bytes
    assert (put.resources, put.compile_s) == (compiled.resources, 1.5)
    assert cache.get("f" * 16) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda entry: next(entry.glob("*.o")).write_bytes(b""),
        lambda entry: next(entry.glob("*.o")).write_bytes(b"objecT"),
        lambda entry: next(entry.glob("*.o")).unlink(),
        lambda entry: next(entry.glob("*.ptx.gz")).write_bytes(b"other"),
        lambda entry: (entry / "artifact.json").write_text(""),
        lambda entry: (entry / "artifact.json").write_text("[]"),
        lambda entry: (entry / "artifact.json").write_bytes(b"\xff\xfe"),
        lambda entry: (entry / "artifact.json").write_text('{"schema": 1}'),
        lambda entry: edit(entry, schema=0),
        lambda entry: edit(entry, artifact_id="f" * 16),
        lambda entry: edit(entry, resources={"regs_per_thread": 1}),
        lambda entry: edit(entry, compile_s=None),
        lambda entry: edit(entry, object=None),
    ],
)
def test_damaged_entry_is_a_miss_until_put_again(
    cache: ArtifactCache, compiled: CompiledKernel, damage: Any
) -> None:
    entry = cache.put(KEY, compiled).object_path.parent
    damage(entry)
    assert cache.get(KEY) is None
    put = cache.put(KEY, compiled)
    assert cache.get(KEY) == put


def edit(entry: Path, **values: object) -> None:
    """Change fields of the metadata."""
    path = entry / "artifact.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_unwritable_folder_warns_once_and_goes_on(tmp_path: Path, compiled: CompiledKernel) -> None:
    (tmp_path / "file").touch()  # root ignores permission bits, but not this
    cache = ArtifactCache(tmp_path / "file" / "cache")
    with pytest.warns(RuntimeWarning, match=r"cannot write .* FA4GEN_CACHE_DIR"):
        put = cache.put(KEY, compiled)
    assert put.object_path.read_bytes() == compiled.object_bytes
    assert cache.get(KEY) == put
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache.put("f" * 16, compiled)
        with cache.lock(KEY, 1.0):
            pass
    assert ArtifactCache(cache.root).get(KEY) is None


def test_read_only_cache_is_still_read(
    cache: ArtifactCache, compiled: CompiledKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = cache.put(KEY, compiled)

    def refuse(*, dir: Path | None = None, prefix: str) -> Any:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("fa4gen.compile.cache.tempfile.mkstemp", refuse)
    read_only = ArtifactCache(cache.root)
    assert read_only.get(KEY) == put
    monkeypatch.setattr("fa4gen.compile.cache.tempfile.mkdtemp", lambda **_: refuse(prefix=""))
    with pytest.warns(RuntimeWarning, match="Read-only"), pytest.raises(OSError, match="Read-only"):
        read_only.put("f" * 16, compiled)
    assert read_only.get(KEY) == put


def test_private_folder_goes_with_the_process(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code = (
        "import sys, warnings; warnings.simplefilter('ignore')\n"
        "from fa4gen.compile import ArtifactCache, CompiledKernel\n"
        "from fa4gen.core.evaluation import ResourceUse\n"
        "cache = ArtifactCache(sys.argv[1])\n"
        "print(cache.put('ab' * 8, CompiledKernel(b'o', b'p', ResourceUse(1, 0, 0, 1), 0.0))"
        ".object_path)\n"
    )
    root = str(tmp_path / "file" / "cache")
    done = subprocess.run(
        [sys.executable, "-c", code, root], check=True, capture_output=True, text=True
    )
    path = Path(done.stdout.strip())
    assert path.name.endswith(".o")
    assert not path.exists()


@pytest.mark.parametrize("writes_before_full", [0, 1, 2])
def test_full_disk_leaves_no_half_entry(
    cache: ArtifactCache,
    compiled: CompiledKernel,
    monkeypatch: pytest.MonkeyPatch,
    writes_before_full: int,
) -> None:
    original, written = os.fdopen, []

    class Full:
        def __init__(self, file: IO[bytes]) -> None:
            self.file = file

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *error: object) -> None:
            self.file.close()

        def write(self, content: bytes) -> None:
            self.file.write(content[:2])
            raise OSError(errno.ENOSPC, "No space left on device")

    def fdopen(descriptor: int, mode: str) -> Any:
        inside = Path(os.readlink(f"/proc/self/fd/{descriptor}")).is_relative_to(cache.root)
        written.append(inside)
        file = original(descriptor, mode)
        return Full(file) if inside and sum(written) > writes_before_full else file

    monkeypatch.setattr("fa4gen.compile.cache.os.fdopen", fdopen)
    with pytest.warns(RuntimeWarning, match="No space left"):
        put = cache.put(KEY, compiled)
    assert put.object_path.read_bytes() == compiled.object_bytes
    monkeypatch.undo()
    assert ArtifactCache(cache.root).get(KEY) is None
    left = [path for path in cache.root.rglob("*") if path.name.startswith(".new-")]
    assert left == []


def test_processes_that_put_the_same_key_do_not_mix(
    cache: ArtifactCache, compiled: CompiledKernel
) -> None:
    code = (
        "import sys\n"
        "from fa4gen.compile import ArtifactCache, CompiledKernel\n"
        "from fa4gen.core.evaluation import ResourceUse\n"
        "root, key, mine = sys.argv[1], sys.argv[2], int(sys.argv[3])\n"
        "for i in range(60):\n"
        "    made = CompiledKernel(b'%d' % mine * 9999, b'%d' % mine,\n"
        "                          ResourceUse(mine, 0, 0, 0), float(mine))\n"
        "    ArtifactCache(root).put(key, made)\n"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(cache.root), KEY, str(mine)])
        for mine in (1, 2)
    ]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        found = cache.get(KEY)
        if found is None:
            assert not seen, "an entry that was complete became a miss"
            time.sleep(0.01)
            continue
        mine = found.resources.regs_per_thread
        assert found.object_path.read_bytes() == b"%d" % mine * 9999
        assert (found.ptx_path.read_bytes(), found.compile_s) == (b"%d" % mine, mine)
        seen.add(mine)
    assert [writer.returncode for writer in writers] == [0, 0]
    assert seen


def test_lock_waits_for_the_holder_but_not_for_ever(cache: ArtifactCache) -> None:
    code = (
        "import sys\n"
        "from fa4gen.compile import ArtifactCache\n"
        "with ArtifactCache(sys.argv[1]).lock(sys.argv[2], 5.0):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(cache.root), KEY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    start = time.monotonic()
    with cache.lock(KEY, 0.2):
        assert 0.2 <= time.monotonic() - start < 2.0
    with cache.lock("f" * 16, 5.0):
        pass
    holder.kill()  # a dead holder lets go
    holder.communicate()
    start = time.monotonic()
    with cache.lock(KEY, 5.0):
        assert time.monotonic() - start < 2.0


def test_environment_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FA4GEN_CACHE_DIR", str(tmp_path / "here"))
    assert default_cache_dir() == ArtifactCache().root == tmp_path / "here"
    monkeypatch.delenv("FA4GEN_CACHE_DIR")
    assert default_cache_dir().name == "fa4gen"


def test_key_covers_what_changes_an_object(kernel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    generated: GeneratedKernel = kernel()
    key = artifact_key(generated)
    assert key == artifact_key(kernel())
    assert key != artifact_key(replace(generated, source=generated.source + "#"))
    assert key != artifact_key(replace(generated, target="sm_100a"))
    assert key == artifact_key(replace(generated, template_hash="other"))
    with monkeypatch.context() as patch:
        patch.setattr(artifact_module, "installed", lambda name: "0.0")
        assert artifact_key(generated) != key
    with monkeypatch.context() as patch:
        patch.setattr(artifact_module, "_host", lambda: "another CPU")
        assert artifact_key(generated) != key
    with monkeypatch.context() as patch:
        patch.setattr(artifact_module, "SCHEMA_VERSION", 0)
        assert artifact_key(generated) != key


def test_removed_cache_is_a_miss(cache: ArtifactCache, compiled: CompiledKernel) -> None:
    cache.put(KEY, compiled)
    shutil.rmtree(cache.root)
    assert cache.get(KEY) is None
