"""The first user of a gateway that other machines reach, with the real commands."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

WITHIN = 120.0  # seconds; generous, for loaded machines

pytestmark = pytest.mark.triton


@dataclass
class Commands:
    """A gateway on all addresses, and commands on its table."""

    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def log(self) -> str:
        return (self.folder / "gateway.log").read_text(errors="replace")

    def found(self, pattern: str) -> re.Match[str]:
        """Return the place of a pattern in the log as soon as it has one."""
        deadline = time.monotonic() + WITHIN
        while (match := re.search(pattern, self.log)) is None:
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.05)
        return match

    def run(self, *words: str) -> str:
        """Run a command beside the gateway; return its output."""
        done = subprocess.run(
            [sys.executable, "-m", "triton_diffusers", *words],
            env=environment(self.folder),
            capture_output=True,
            text=True,
            timeout=WITHIN,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


def environment(folder: Path) -> dict[str, str]:
    own = {"TRITON_DIFFUSERS_GATEWAY_STATE_DIR": str(folder), "TRITON_DIFFUSERS_STORE": str(folder / "results")}
    return {**os.environ, **own}


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Commands]:
    with (tmp_path / "gateway.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "triton_diffusers", "gateway", "--host=0.0.0.0", "--port=0"],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment(tmp_path),
        )
    yield Commands(tmp_path, process)
    process.kill()
    process.wait()


def test_a_gateway_is_set_up_with_the_code_of_its_log(gateway: Commands) -> None:
    port = gateway.found(r"listens on http://\S+:(\d+)")[1]
    code = gateway.found(r'"code": "([^"]+)"')[1]
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=WITHIN) as client:
        assert client.get("/health/live").status_code == 200
        assert client.post("/api/jobs", json={"prompt": "an apple"}).status_code == 401
        admin = client.post("/api/setup", json={"code": code, "name": "root"}).json()["key"]
        assert client.post("/api/setup", json={"code": code, "name": "other"}).status_code == 404
        # Another process manages the same users, and its changes hold at once.
        ann = gateway.run("users", "add", "ann")
        for key, user in ((admin, "root"), (ann, "ann")):
            assert client.get("/api/me", headers={"Authorization": key}).json()["user"] == user
        job = client.post("/api/jobs", json={"prompt": "an apple"}, headers={"X-API-Key": ann}).json()
        assert client.get(f"/api/jobs/{job['id']}", headers={"X-API-Key": admin}).status_code == 404
        gateway.run("keys", "revoke", ann.split("_")[1])
        assert client.get("/api/me", headers={"Authorization": ann}).status_code == 401
    gateway.process.send_signal(signal.SIGTERM)
    gateway.process.wait(WITHIN)
    assert "the set-up code adds user root, the first administrator" in gateway.log
    assert admin not in gateway.log
    assert ann not in gateway.log
