"""Results in a local directory.

An image is written to ``.incoming/`` of the store, synced, and then linked to its name, which fails if the name is
taken: under a name there is a whole image or nothing, whatever crashes. Who writes holds a lock on the temporary
file, and a lock dies with its process: at start, temporary files without one are removed, also those of other
containers that share the directory. They are in one folder, so that nobody has to look through the whole store.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from triton_diffusers.errors import InvalidRequest, NotFound, StorageFailure
from triton_diffusers.settings import PREFIX, Settings, SettingsError
from triton_diffusers.storage.protocol import NameTaken, StoreAway, StoredResult
from triton_diffusers.util.files import fsync

logger = logging.getLogger(__name__)

_INCOMING = ".incoming"
_TRIAL_BYTES = 64 * 1024  # enough to notice a full disk
# What may be otherwise in a minute: a full disk, a network's file system that is away.
_PASSING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ENOTCONN})
# What file systems say that have no hard links, such as a bucket that is mounted.
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})


def open_local(settings: Settings) -> LocalStore:
    """Return the directory of the setting ``store``, made if it does not exist. Raises ``SettingsError``."""
    try:
        return LocalStore(Path(settings.store).expanduser(), settings.store_url)
    except (OSError, RuntimeError) as error:  # RuntimeError: nobody's home
        raise _unusable(settings.store, error) from error


def _unusable(store: str, error: Exception) -> SettingsError:
    why = getattr(error, "strerror", None) or error
    return SettingsError(f"{PREFIX}STORE: {store!r} is invalid: no results can be written there ({why})")


class LocalStore:
    """Images below ``root``. With ``public_url``, that is where a web server shows ``root``."""

    def __init__(self, root: Path, public_url: str = "") -> None:
        """Make the directory, and remove what dead processes left. Raises ``OSError``."""
        (root / _INCOMING).mkdir(parents=True, exist_ok=True)
        self._root = root.resolve()
        self._public_url = public_url.rstrip("/")
        self._renaming = threading.Lock()
        self._sweep()

    def try_out(self) -> None:
        """See ``ResultStore``."""
        try:
            with self._temporary(b"\0" * _TRIAL_BYTES):
                pass
        except OSError as error:
            raise _unusable(str(self._root), error) from error

    def save(self, name: str, data: bytes, content_type: str) -> StoredResult:
        """See ``ResultStore``."""
        final = self._folder(name) / Path(name).name
        try:
            with self._temporary(data) as temporary:
                self._publish(temporary, final)
        except FileExistsError as error:
            raise NameTaken(f"{name} is in the store already") from error
        except OSError as error:
            raise _failure(f"{name} cannot be stored", error) from error
        return self._stored(name, final)

    def locate(self, name: str) -> StoredResult:
        """See ``ResultStore``."""
        return self._stored(name, self._root / name)

    def read(self, name: str) -> bytes:
        """See ``ResultStore``."""
        try:
            path = (self._root / name).resolve()
            if not path.is_relative_to(self._root):
                raise NotFound(f"{name} is not in the store")
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFound(f"{name} is not in the store") from error
        except OSError as error:
            raise _failure(f"{name} cannot be read", error) from error

    def _stored(self, name: str, final: Path) -> StoredResult:
        url = f"{self._public_url}/{quote(name)}" if self._public_url else final.as_uri()
        return StoredResult(name, url, final.as_uri())

    def discard(self, stored: StoredResult) -> None:
        """See ``ResultStore``."""
        try:
            (self._root / stored.name).unlink(missing_ok=True)
        except OSError as error:
            raise StorageFailure(f"{stored.name} cannot be removed: {error.strerror}") from error

    def _folder(self, name: str) -> Path:
        """The folder of a name, which is made if it is not there; links are followed, but not out of the store."""
        asked = Path(name).parent
        try:
            folder = (self._root / asked).resolve()
            if not folder.is_relative_to(self._root):
                raise InvalidRequest("save_dir", str(asked), "it is a link that leads out of the store")
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError, RuntimeError) as error:  # RuntimeError: links in a circle
            raise InvalidRequest("save_dir", str(asked), "something in the store that is no folder has it") from error
        except OSError as error:
            raise _failure(f"the folder {asked} cannot be made in the store", error) from error
        return folder

    @contextlib.contextmanager
    def _temporary(self, data: bytes) -> Iterator[Path]:
        """A synced file with ``data`` that is gone afterwards."""
        path, descriptor = self._create()
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
            yield path
        finally:
            path.unlink(missing_ok=True)
            os.close(descriptor)

    def _create(self) -> tuple[Path, int]:
        while True:
            path = self._root / _INCOMING / secrets.token_hex(16)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink:
                return path, descriptor
            # Another process that was just starting swept the file away before it was locked.
            os.close(descriptor)

    def _publish(self, temporary: Path, final: Path) -> None:
        """Give a file its name; raises ``FileExistsError`` if that is taken."""
        try:
            os.link(temporary, final)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            with self._renaming:
                if os.path.lexists(final):
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), final) from None
                temporary.rename(final)
        try:
            fsync(final.parent)
        except OSError:
            final.unlink(missing_ok=True)
            raise

    def _sweep(self) -> None:
        for path in (self._root / _INCOMING).iterdir():
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except OSError:
                continue  # its owner has just finished, or it is no file of ours
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
                logger.info("removed %s, which a process that died had not finished", path)
            except OSError:
                pass  # being written
            finally:
                os.close(descriptor)


def _failure(what: str, error: OSError) -> StorageFailure:
    return (StoreAway if error.errno in _PASSING else StorageFailure)(f"{what}: {error.strerror}")
