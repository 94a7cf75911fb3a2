"""The package's exports, and the packages that it does not need."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import triton_diffusers_client
from triton_diffusers_client import errors

ROOT = Path(__file__).parents[3]
DOCS = (ROOT / "docs" / "client.md").read_text(encoding="utf-8")


def test_exports() -> None:
    assert sorted(triton_diffusers_client.__all__) == triton_diffusers_client.__all__
    assert all(hasattr(triton_diffusers_client, name) for name in triton_diffusers_client.__all__)
    public = {name for name in vars(errors) if name.endswith("Error")}
    assert public <= set(triton_diffusers_client.__all__), "every error can be caught by who imports the package"
    assert all(name in (errors.__doc__ or "") and name in DOCS for name in public)


def test_only_the_used_transport_is_imported() -> None:
    code = (
        "import sys, triton_diffusers_client as c, triton_diffusers_client.cli\n"
        "c.Client('http://127.0.0.1:1').close()\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules} & {'torch', 'triton_diffusers', 'PIL', 'grpc'}))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []


def test_the_distribution_is_typed_and_light() -> None:
    project = tomllib.loads((ROOT / "client" / "pyproject.toml").read_text(encoding="utf-8"))
    assert not any("torch" in need or "triton-diffusers" in need for need in project["project"]["dependencies"])
    assert (ROOT / "client" / "triton_diffusers_client" / "py.typed").exists()
