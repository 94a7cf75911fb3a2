"""The ``tritonserver`` to run, and what it needs so that its model processes run this Python.

Triton runs a Python model in a *stub*: a small program with one Python version linked in. The stub finds its packages
the way ``python3`` from its ``PATH`` would; a virtual environment is therefore given to it by putting the directory of
the running interpreter first. It also needs that version's shared ``libpython``.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from triton_diffusers.launcher.errors import LaunchError, PythonUnsupported, TritonNotFound
from triton_diffusers.launcher.workspace import is_plain

log = logging.getLogger(__name__)

STUB = "triton_python_backend_stub"
_PACKAGE = Path(__file__).parents[1]  # this library
_BACKEND_FILES = ("libtriton_python.so", "triton_python_backend_utils.py")
_SYSTEM_HOME = Path("/opt/tritonserver")
_OLDEST_PYTHON = (3, 11)  # of this library
_LINKED_PYTHON = re.compile(rb"libpython3(?:-[0-9a-f]+)?\.(\d+)\.so")


def running_python() -> str:
    """Major and minor version of the Python that runs this program, such as ``3.11``."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True)
class TritonRuntime:
    """A ``tritonserver`` that can be started: the program, its backends, and its environment."""

    binary: Path
    backends: Path
    origin: str
    environment: Mapping[str, str]


def find_runtime(
    workdir: Path,
    *,
    chosen: Path | None = None,
    python: str | None = None,
    path: str | None = None,
    system_home: Path = _SYSTEM_HOME,
) -> TritonRuntime:
    """Find a tritonserver and assemble in ``workdir`` what it lacks.

    A chosen program is used or refused. Otherwise a system one (on ``path``, or under ``system_home``) comes first; if
    its stub is for another Python, that is logged and the wheel's is used.

    Raises:
        TritonNotFound: there is none; the message says how to get one.
        PythonUnsupported: there is one, but not for ``python`` (default: the running version).
    """
    python = python or running_python()
    if chosen is not None:
        return _system_runtime(chosen, workdir, python, system_home)
    refusal: LaunchError | None = None
    if system := _find_system(path, system_home):
        try:
            return _system_runtime(system, workdir, python, system_home)
        except LaunchError as error:
            refusal = error
            log.warning("%s; looking for the wheel's tritonserver instead", error)
    if wheel := _wheel_home():
        return _wheel_runtime(wheel, workdir, python)
    raise refusal or TritonNotFound(
        "there is no tritonserver here; install the wheel that brings one (pip install 'triton-diffusers[server]'), "
        "or run inside NVIDIA's Triton container"
    )


def _find_system(path: str | None, home: Path) -> Path | None:
    found = shutil.which("tritonserver", path=path) or shutil.which("tritonserver", path=str(home / "bin"))
    return Path(found) if found else None


def _system_runtime(binary: Path, workdir: Path, python: str, system_home: Path) -> TritonRuntime:
    if not os.access(binary, os.X_OK) or not binary.is_file():
        raise TritonNotFound(f"{binary} is not a program that can be run")
    homes = (binary.absolute().parent.parent, binary.resolve().parent.parent, system_home)
    backends = next((home / "backends" for home in homes if (home / "backends" / "python" / STUB).exists()), None)
    if backends is None:
        raise TritonNotFound(f"{binary} has no Python backend beside it (backends/python/{STUB})")
    linked = _LINKED_PYTHON.search((backends / "python" / STUB).read_bytes())
    if linked and f"3.{linked[1].decode()}" != python:
        raise PythonUnsupported(
            f"the Python backend of {binary} is for Python 3.{linked[1].decode()}, and this is Python {python}; "
            f"run triton-diffusers with Python 3.{linked[1].decode()}"
        )
    return TritonRuntime(binary, backends, f"system, {binary}", _environment(workdir))


def _wheel_home() -> Path | None:
    # Found without importing it: the import runs pytriton's own set-up, which nothing here needs.
    spec = importlib.util.find_spec("pytriton")
    if spec is None or not spec.origin:
        return None
    home = Path(spec.origin).parent / "tritonserver"
    return home if (home / "bin" / "tritonserver").is_file() else None


def _wheel_runtime(home: Path, workdir: Path, python: str) -> TritonRuntime:
    stub = home / "python_backend_stubs" / python / STUB
    if not stub.is_file():
        there = sorted(tuple(map(int, folder.name.split("."))) for folder in (home / "python_backend_stubs").iterdir())
        usable = ", ".join(".".join(map(str, version)) for version in there if version >= _OLDEST_PYTHON)
        raise PythonUnsupported(
            f"Triton's wheel has no Python backend for Python {python}; run triton-diffusers with one of {usable}"
        )
    backend = workdir / "backends" / "python"
    backend.mkdir(parents=True)
    for source in (*(home / "backends" / "python" / name for name in _BACKEND_FILES), stub):
        (backend / source.name).symlink_to(source)
    if not (_is_installed() and is_plain(_PACKAGE)):
        # The stub reads no PYTHONPATH, but imports from here. Nor can it import from a path that is not ASCII.
        (backend / _PACKAGE.name).symlink_to(_PACKAGE)
    environment = _environment(workdir)
    _check_stub(backend / STUB, environment, python)
    return TritonRuntime(
        home / "bin" / "tritonserver", backend.parent, f"wheel, nvidia-pytriton {_version()}", environment
    )


def _version() -> str:
    return importlib.metadata.version("nvidia-pytriton")


def _check_stub(stub: Path, environment: Mapping[str, str], python: str) -> None:
    # Called without arguments the stub only prints its usage; the dynamic loader has done its work by then.
    check = subprocess.run([stub], env=dict(environment), capture_output=True, text=True, check=False)  # noqa: S603
    if check.returncode == 127:
        raise PythonUnsupported(
            f"Python {python} here comes without its shared library, which Triton's Python backend needs "
            f"({check.stderr.strip().rpartition('libraries: ')[2]}); install libpython{python} or another Python"
        )


def _environment(workdir: Path) -> dict[str, str]:
    environment = dict(os.environ)
    _prepend(environment, "PATH", _interpreter_directory(workdir))
    if library := _interpreter_library():
        # Only this one file: the interpreter's whole library directory could bring another libstdc++ or libssl.
        directory = workdir / "lib"
        directory.mkdir(exist_ok=True)
        (directory / library.name).symlink_to(library)
        _prepend(environment, "LD_LIBRARY_PATH", directory)
    return environment


def _prepend(environment: dict[str, str], variable: str, directory: Path) -> None:
    rest = environment.get(variable)
    environment[variable] = f"{directory}{os.pathsep}{rest}" if rest else str(directory)


def _interpreter_directory(workdir: Path) -> Path:
    directory = Path(sys.executable).parent
    if (directory / "python3").exists():
        return directory
    # An interpreter known only as, say, python3.11 (never so in a virtual environment): give it the name looked for.
    own = workdir / "bin"
    own.mkdir()
    (own / "python3").symlink_to(sys.executable)
    return own


def _interpreter_library() -> Path | None:
    directory, name = sysconfig.get_config_vars("LIBDIR", "INSTSONAME")
    if not directory or not name or ".so" not in name:  # a Python without a shared library; the system may have one
        return None
    library = Path(directory) / name
    return library if library.is_file() else None


def _is_installed() -> bool:
    try:
        importlib.metadata.distribution("triton-diffusers")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
