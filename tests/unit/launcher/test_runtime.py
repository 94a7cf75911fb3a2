"""Which tritonserver is taken, and what is said when none fits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from triton_diffusers.launcher import runtime as runtime_module
from triton_diffusers.launcher.errors import PythonUnsupported, TritonNotFound
from triton_diffusers.launcher.runtime import STUB, find_runtime, running_python


@pytest.fixture
def nowhere(tmp_path: Path) -> Path:
    """Return a folder without a tritonserver in it."""
    return tmp_path / "nowhere"


def system(home: Path, linked_with: str) -> Path:
    """Return a tritonserver in the layout of NVIDIA's container, whose stub names its libpython."""
    program = home / "bin" / "tritonserver"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    stub = home / "backends" / "python" / STUB
    stub.parent.mkdir(parents=True)
    stub.write_bytes(b"\x7fELF\0" + linked_with.encode() + b"\0")
    return program


def test_wheel_is_assembled_when_there_is_no_other(tmp_path: Path, nowhere: Path) -> None:
    runtime = find_runtime(tmp_path, path="", system_home=nowhere)
    assert "nvidia-pytriton" in runtime.origin
    assert os.access(runtime.binary, os.X_OK)
    backend = runtime.backends / "python"
    assert {file.name for file in backend.iterdir()} == {STUB, "libtriton_python.so", "triton_python_backend_utils.py"}
    first = runtime.environment["PATH"].split(os.pathsep)[0]
    found = subprocess.run([f"{first}/python3", "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True)
    assert found.stdout.strip() == sys.prefix


@pytest.mark.parametrize(("installed", "name"), [(True, "项目"), (False, "project")])
def test_package_that_the_stub_cannot_import_is_linked(
    tmp_path: Path, nowhere: Path, monkeypatch: pytest.MonkeyPatch, installed: bool, name: str
) -> None:
    package = tmp_path / name / "triton_diffusers"
    package.mkdir(parents=True)
    monkeypatch.setattr(runtime_module, "_PACKAGE", package)
    monkeypatch.setattr(runtime_module, "_is_installed", lambda: installed)
    runtime = find_runtime(tmp_path, path="", system_home=nowhere)
    assert (runtime.backends / "python" / "triton_diffusers").samefile(package)


def test_system_comes_first(tmp_path: Path, nowhere: Path) -> None:
    on_path = system(tmp_path / "on path", f"libpython{running_python()}.so.1.0")
    usual = system(tmp_path / "usual", f"libpython{running_python()}.so.1.0")
    for name in "abc":
        (tmp_path / name).mkdir()
    found = find_runtime(tmp_path / "a", path=str(on_path.parent), system_home=usual.parent.parent)
    assert (found.binary, found.backends) == (on_path, tmp_path / "on path" / "backends")
    assert find_runtime(tmp_path / "b", path="", system_home=usual.parent.parent).binary == usual
    # A link to it, in a directory of links, is the same program with the same backends.
    link = tmp_path / "links" / "tritonserver"
    link.parent.mkdir()
    link.symlink_to(on_path)
    found = find_runtime(tmp_path / "c", path=str(link.parent), system_home=nowhere)
    assert found.backends == tmp_path / "on path" / "backends"


@pytest.mark.parametrize("linked_with", ["libpython3.8.so.1.0", "libpython3-419a3a08.8.so.1.0"])
def test_system_for_another_python_gives_way_to_the_wheel(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, linked_with: str
) -> None:
    program = system(tmp_path / "system", linked_with)
    runtime = find_runtime(tmp_path, path="", system_home=program.parent.parent)
    assert "nvidia-pytriton" in runtime.origin
    assert "is for Python 3.8, and this is Python" in caplog.text


def test_chosen_program_is_used_or_refused(tmp_path: Path, nowhere: Path) -> None:
    fitting = system(tmp_path / "fitting", f"libpython{running_python()}.so.1.0")
    assert find_runtime(tmp_path, chosen=fitting, system_home=nowhere).binary == fitting
    other = system(tmp_path / "other", "libpython3.8.so.1.0")
    with pytest.raises(PythonUnsupported, match=r"for Python 3\.8, and this is Python .*; run .* with Python 3\.8"):
        find_runtime(tmp_path, chosen=other, system_home=nowhere)
    with pytest.raises(TritonNotFound, match="not a program"):
        find_runtime(tmp_path, chosen=nowhere / "tritonserver", system_home=nowhere)
    (tmp_path / "fitting" / "backends" / "python" / STUB).unlink()
    with pytest.raises(TritonNotFound, match="has no Python backend beside it"):
        find_runtime(tmp_path, chosen=fitting, system_home=nowhere)


def test_python_without_a_stub_gets_a_list_of_those_with_one(tmp_path: Path, nowhere: Path) -> None:
    with pytest.raises(PythonUnsupported, match=r"for Python 3\.99; .* one of 3\.11, 3\.12, 3\.13$"):
        find_runtime(tmp_path, python="3.99", path="", system_home=nowhere)


def test_without_any_tritonserver_it_says_how_to_get_one(tmp_path: Path, nowhere: Path) -> None:
    # Another interpreter, without site-packages, so that the wheel is truly not there.
    program = (
        "import sys, pathlib\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from triton_diffusers.launcher.runtime import find_runtime\n"
        "find_runtime(pathlib.Path(sys.argv[2]), path='', system_home=pathlib.Path(sys.argv[2]))\n"
    )
    root = str(Path(__file__).parents[3])
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, root, str(nowhere)], capture_output=True, text=True, check=False
    )
    assert "TritonNotFound: there is no tritonserver here; install" in run.stderr
