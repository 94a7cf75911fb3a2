"""Which models share an engine process, and where it listens."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from triton_diffusers.engine_process.address import engine_addresses
from triton_diffusers.settings import Settings


def test_models_with_equal_settings_share_an_engine(tmp_path: Path) -> None:
    first, second = (Settings(runtime_dir=tmp_path, max_queue=7) for _ in range(2))
    assert engine_addresses(first) == engine_addresses(second)
    assert len(set(engine_addresses(first))) == 1


@pytest.mark.parametrize("changed", [{"max_queue": 8}, {"model_dir": Path("other")}, {"device": "cuda:0"}])
def test_models_with_other_settings_have_an_engine_of_their_own(tmp_path: Path, changed: dict[str, Any]) -> None:
    (ours,) = engine_addresses(Settings(runtime_dir=tmp_path))
    (theirs,) = engine_addresses(Settings(runtime_dir=tmp_path, **changed))
    assert ours.socket != theirs.socket
    assert ours.lock != theirs.lock


def test_each_device_has_an_engine(tmp_path: Path) -> None:
    addresses = engine_addresses(Settings(runtime_dir=tmp_path, device="cuda:0, cuda:1,cpu"))
    assert [(address.number, address.device) for address in addresses] == [(0, "cuda:0"), (1, "cuda:1"), (2, "cpu")]
    assert len({address.socket for address in addresses} | {address.lock for address in addresses}) == 6
    assert {address.socket.parent for address in addresses} == {tmp_path}


def test_a_relative_runtime_directory_is_that_of_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine process may have another working directory."""
    monkeypatch.chdir(tmp_path)
    (address,) = engine_addresses(Settings(runtime_dir=Path("runtime")))
    assert address.socket.parent == tmp_path / "runtime"


def test_a_missing_runtime_directory_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    engine_addresses(Settings(runtime_dir=tmp_path / "a" / "runtime"))
    assert (tmp_path / "a" / "runtime").stat().st_mode & 0o777 == 0o700


def test_a_directory_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = tmp_path.stat().st_uid
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)  # to give the directory away takes root
    with pytest.raises(PermissionError, match="belongs to another user"):
        engine_addresses(Settings(runtime_dir=tmp_path))
