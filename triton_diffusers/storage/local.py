"""Results in a local directory.

An image is written to the store's ``.incoming/``, synced, and then hard-linked to its name, which fails if the name is
taken. So a name has a whole image or none, even after a crash. The writer holds a lock on its temporary file. Locks end
with their process: at start, temporary files without a lock are removed, also those of other containers that share the
directory.
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
# Errors that may pass: a full disk, an unavailable network file system.
_PASSING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ENOTCONN})
# Errors of file systems without hard links, such as a mounted bucket.
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})


def open_local(settings: Settings) -> LocalStore:
    """Return the directory of the setting ``store``; create it if it is missing. Raises ``SettingsError``."""
    try:
        return LocalStore(Path(settings.store).expanduser(), settings.store_url, settings.store_location)
    except (OSError, RuntimeError) as error:  # RuntimeError: the home of ~ is unknown
        raise _unusable(settings.store, error) from error


def _unusable(store: str, error: Exception) -> SettingsError:
    why = getattr(error, "strerror", None) or error
    return SettingsError(f"{PREFIX}STORE: {store!r} is invalid: no results can be written there ({why})")


class LocalStore:
    """Images below ``root``; ``public_url``, if set, is the URL at which a web server shows ``root``.

    ``location``, if set, is the place in the bucket that is mounted at ``root``.
    """

    def __init__(self, root: Path, public_url: str = "", location: str = "") -> None:
        """Create the directory, and remove temporary files of dead processes. Raises ``OSError``."""
        (root / _INCOMING).mkdir(parents=True, exist_ok=True)
        self._root = root.resolve()
        self._public_url = public_url.rstrip("/")
        self._location = location.rstrip("/")
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
        return StoredResult(name, url, f"{self._location}/{name}" if self._location else final.as_uri())

    def discard(self, stored: StoredResult) -> None:
        """See ``ResultStore``."""
        try:
            (self._root / stored.name).unlink(missing_ok=True)
        except OSError as error:
            raise StorageFailure(f"{stored.name} cannot be removed: {error.strerror}") from error

    def _folder(self, name: str) -> Path:
        """Return a name's folder, created if it is missing; symbolic links are followed, but not out of the store."""
        asked = Path(name).parent
        try:
            folder = (self._root / asked).resolve()
            if not folder.is_relative_to(self._root):
                raise InvalidRequest("save_dir", str(asked), "it is a link that leads out of the store")
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError, RuntimeError) as error:  # RuntimeError: links in a circle
            raise InvalidRequest("save_dir", str(asked), "a non-directory with this name exists already") from error
        except OSError as error:
            raise _failure(f"the folder {asked} cannot be made in the store", error) from error
        return folder

    @contextlib.contextmanager
    def _temporary(self, data: bytes) -> Iterator[Path]:
        """Provide a synced temporary file with ``data``."""
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
            # Another process that was starting removed the file before it was locked: try again.
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
                continue  # its owner has just finished, or it is not one of these files
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
                logger.info("removed %s, which a process that died had not finished", path)
            except OSError:
                pass  # its writer is alive
            finally:
                os.close(descriptor)


def _failure(what: str, error: OSError) -> StorageFailure:
    return (StoreAway if error.errno in _PASSING else StorageFailure)(f"{what}: {error.strerror}")
