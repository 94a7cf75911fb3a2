"""A workspace is removed with its server, or by the next launcher if it was killed, and never while it is used."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.waiting import until
from triton_diffusers.launcher import workspace as workspace_module
from triton_diffusers.launcher.errors import BadOption
from triton_diffusers.launcher.workspace import Workspace, sweep


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a temporary directory of the test's own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def region(workspace: Workspace) -> Path:
    path = Path("/dev/shm") / f"{workspace.region_prefix}region"
    path.write_bytes(b"left over")
    return path


def test_removed_at_the_end() -> None:
    with Workspace.create() as workspace:
        left = region(workspace)
        assert workspace.runtime_dir.is_dir()
        assert workspace.root in workspace.runtime_dir.parents
    assert not left.exists()
    assert not workspace.root.exists()


def test_runtime_directory_that_was_given_is_kept(tmp_path: Path) -> None:
    given = tmp_path / "made" / "for it"
    with Workspace.create(given) as workspace:
        workspace.publish({"http": "http://127.0.0.1:1", "pid": 2})
        assert json.loads((given / "endpoints.json").read_text()) == {"http": "http://127.0.0.1:1", "pid": 2}
    assert list(given.iterdir()) == []


def test_sweep_spares_the_living() -> None:
    with Workspace.create() as workspace:
        left = region(workspace)
        assert sweep() == 0
        assert left.exists()
        assert workspace.root.exists()


def test_sweep_waits_for_the_last_process_that_inherited_the_lock(tmp_path: Path) -> None:
    # A launcher that starts a server, which outlives it: as after kill -9.
    program = (
        "import os, subprocess, sys\n"
        "from triton_diffusers.launcher.workspace import Workspace\n"
        "workspace = Workspace.create()\n"
        "silent = {'stdout': subprocess.DEVNULL, 'stderr': subprocess.DEVNULL}\n"
        "server = subprocess.Popen(['sleep', '1000'], pass_fds=[workspace.lock], **silent)\n"
        "print(server.pid, workspace.root)\n"
        "sys.stdout.flush()\n"
        "os._exit(9)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[3])},
        check=False,
    )
    server, root = run.stdout.split()
    left = Path("/dev/shm") / f"{Path(root).name}-region"
    left.write_bytes(b"left over")
    assert sweep() == 0
    assert left.exists()
    os.kill(int(server), signal.SIGKILL)
    assert until(sweep) == 1
    assert not left.exists()
    assert not Path(root).exists()


def test_sweep_leaves_what_is_not_ours_alone(temporary: Path) -> None:
    (temporary / "triton-diffusers-being-made").mkdir()  # no lock yet
    (temporary / "triton-diffusers-a-file").touch()
    assert sweep() == 0
    assert len(list(temporary.iterdir())) == 2


@pytest.mark.parametrize("name", ["临时", "été", "a b", "a'b"])
def test_another_place_stands_in_for_a_tmpdir_that_is_not_plain(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (temporary / name).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary / name))
    monkeypatch.setattr(workspace_module, "_STAND_INS", ("/nowhere", str(temporary)))
    with Workspace.create() as workspace:
        assert workspace.root.parent == temporary
        assert sweep() == 0
    monkeypatch.setattr(workspace_module, "_STAND_INS", ())
    with pytest.raises(BadOption, match=r"TMPDIR: .* is invalid: expected a path of letters A-Z"):
        Workspace.create()


def test_plain_path_is_itself_and_any_other_a_link(tmp_path: Path) -> None:
    other = tmp_path / "模型 库"
    other.mkdir()
    with Workspace.create() as workspace:
        assert workspace.plain(tmp_path) == tmp_path
        link = workspace.plain(other)
        assert str(link).isascii()
        assert link.samefile(other)


def test_sweep_does_not_stumble_over_what_other_users_put_there(temporary: Path, tmp_path: Path) -> None:
    """The place of workspaces is open to everybody."""
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "lock").touch()
    (temporary / "triton-diffusers-folder" / "lock").mkdir(parents=True)
    (temporary / "triton-diffusers-circle").mkdir()
    (temporary / "triton-diffusers-circle" / "lock").symlink_to("lock")
    (temporary / "triton-diffusers-elsewhere").mkdir()
    (temporary / "triton-diffusers-elsewhere" / "lock").symlink_to(precious / "lock")
    (temporary / "triton-diffusers-link").symlink_to(precious)
    (temporary / "triton-diffusers-loop").symlink_to("triton-diffusers-loop")
    assert sweep() in (0, 1)
    assert (precious / "lock").exists()
    assert (temporary / "triton-diffusers-elsewhere").is_dir()


def test_sweep_leaves_the_workspaces_of_other_users(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = temporary / "triton-diffusers-left"
    left.mkdir()
    (left / "lock").touch()
    monkeypatch.setattr(os, "geteuid", lambda: left.stat().st_uid + 1)
    assert sweep() == 0
    monkeypatch.undo()
    assert left.is_dir()


def test_published_key_is_for_this_user_alone(tmp_path: Path) -> None:
    """Whatever lay there before."""
    target = tmp_path / "target"
    target.write_text("kept")
    (tmp_path / "endpoints.json.new").symlink_to(target)
    with Workspace.create(tmp_path) as workspace:
        workspace.publish({"key": "secret"})
        assert (tmp_path / "endpoints.json").stat().st_mode & 0o777 == 0o600
        assert not (tmp_path / "endpoints.json").is_symlink()
    assert target.read_text() == "kept"
