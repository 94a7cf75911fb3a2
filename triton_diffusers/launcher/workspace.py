"""Workspace: the folder and the shared memory of one running server.

``<temp>/triton-diffusers-<random>/`` holds what is assembled for one server. Its ``lock`` is held by the launcher *and*
by the processes that it starts, which inherit it: a lock that can be taken means that all of them are gone, even if
they were killed. Then the next launcher removes what they left, shared memory included (its names start with the
folder's name).

Triton names the folder in a shell's command, and its stub imports from there before file names are UTF-8 (see
``utf8``). So its path is plain: another directory stands in for a ``TMPDIR`` that is not.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import stat
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from triton_diffusers.launcher.errors import BadOption
from triton_diffusers.util.files import atomic_write, open_locked

_PREFIX = "triton-diffusers-"
_LOCK = "lock"
_ENDPOINTS = "endpoints.json"
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where the kernel has it
_STAND_INS = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - a folder of our own is made there
_PLAIN = re.compile(r"[A-Za-z0-9._/+-]+")


@dataclass(frozen=True)
class Workspace:
    """A server's own folder, locked; a context manager that removes it.

    ``runtime_dir`` is where the models of this server meet. It is inside the folder, unless the caller brought one,
    which is then kept. ``control_key`` opens what ordinary callers of the server must not use.
    """

    root: Path
    lock: int
    runtime_dir: Path
    control_key: str = field(default_factory=lambda: secrets.token_urlsafe(24))

    @classmethod
    def create(cls, runtime_dir: Path | None = None) -> Workspace:
        """Make and lock a new workspace; ``runtime_dir`` is made if it is given and missing.

        Raises: BadOption: there is no place for it.
        """
        root = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_place()))
        # The lock gets its name when it is already held: a sweep never sees it free while this server starts.
        temporary = root / f"{_LOCK}.new"
        lock = open_locked(temporary)
        temporary.rename(root / _LOCK)
        runtime_dir = (runtime_dir or root / "runtime").absolute()
        runtime_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        return cls(root, lock, runtime_dir)

    @property
    def region_prefix(self) -> str:
        """Prefix of the names of this server's shared memory regions."""
        return f"{self.root.name}-"

    def plain(self, path: Path) -> Path:
        """Return ``path``, or a link to it in this workspace if its name has characters that Triton cannot take."""
        if is_plain(path):
            return path
        link = self.root / "links" / secrets.token_hex(4)
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(path.absolute())
        return link

    def publish(self, endpoints: dict[str, str | int]) -> None:
        """Write ``endpoints.json`` into the runtime directory, for programs that look for the server."""
        # Readable by its owner only: it holds a key.
        atomic_write(self.runtime_dir / _ENDPOINTS, json.dumps(endpoints, indent=2) + "\n", mode=0o600)

    def remove_shared_memory(self) -> None:
        """Remove the shared memory of a server that has died, so that the next one can use its names."""
        _remove_regions(self.root.name)

    def __enter__(self) -> Workspace:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        (self.runtime_dir / _ENDPOINTS).unlink(missing_ok=True)
        _remove(self.root)
        os.close(self.lock)


def sweep() -> int:
    """Remove the workspaces of killed servers, and return their number."""
    removed = 0
    for root in Path(_place()).glob(f"{_PREFIX}*"):
        # The place is open to all users of the machine, who may put anything there under such a name.
        with contextlib.suppress(OSError):
            if root.lstat().st_uid != os.geteuid() or not stat.S_ISREG((root / _LOCK).lstat().st_mode):
                continue
            try:
                lock = open_locked(root / _LOCK, wait=False, create=False)
            except BlockingIOError:
                continue
            try:
                _remove(root)
                removed += 1
            finally:
                os.close(lock)
    return removed


def is_plain(path: Path) -> bool:
    """Return True if neither a shell nor a Python in the C locale misreads a character of the path."""
    return _PLAIN.fullmatch(str(path)) is not None


def _place() -> str:
    """Return the directory of workspaces. Raises ``BadOption``."""
    usual = tempfile.gettempdir()
    for place in (usual, *_STAND_INS):
        if is_plain(Path(place)) and os.access(place, os.W_OK | os.X_OK):
            return place
    raise BadOption(f"TMPDIR: {usual!r} is invalid: expected a path of letters A-Z, digits and ._/+- that is writable")


def _remove(root: Path) -> None:
    _remove_regions(root.name)
    shutil.rmtree(root, ignore_errors=True)


def _remove_regions(workspace: str) -> None:
    with contextlib.suppress(FileNotFoundError):  # no shared memory on this system
        for region in _SHARED_MEMORY.iterdir():
            if region.name.startswith(f"{workspace}-"):
                region.unlink(missing_ok=True)
