"""The local store: whole images under names that are written once, inside its directory."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from triton_diffusers.errors import InvalidRequest, NotFound, StorageFailure
from triton_diffusers.settings import Settings, SettingsError
from triton_diffusers.storage import NameTaken, ResultStore, StoredResult, open_store
from triton_diffusers.storage.local import LocalStore

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.fixture
def store(root: Path) -> LocalStore:
    return LocalStore(root)


def files(root: Path) -> dict[str, bytes]:
    """Everything in a store, temporary files too."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def save(store: ResultStore, name: str = "result/a_0.png", data: bytes = b"data") -> StoredResult:
    return store.save(name, data, "image/png")


def test_the_setting_names_a_directory(root: Path) -> None:
    store = open_store(Settings(store=str(root)))
    assert isinstance(store, LocalStore)
    stored = save(store)
    assert files(root) == {"result/a_0.png": b"data"}
    assert stored == StoredResult("result/a_0.png", f"file://{root}/result/a_0.png", f"file://{root}/result/a_0.png")


def test_stored_results_are_located_and_read_by_name(store: LocalStore) -> None:
    stored = save(store, "result/图 1.png", b"pixels")
    assert store.locate("result/图 1.png") == stored
    assert store.read("result/图 1.png") == b"pixels"


@pytest.mark.parametrize("name", ["result/b_0.png", "result/a_0.png/x", "../outside", "/etc/hostname"])
def test_names_that_are_not_in_the_store_are_not_read(store: LocalStore, root: Path, name: str) -> None:
    save(store)
    (root.parent / "outside").write_bytes(b"somebody else's")
    with pytest.raises(NotFound, match="is not in the store"):
        store.read(name)


def test_an_empty_setting_opens_no_store() -> None:
    assert open_store(Settings(store="")) is None


@pytest.mark.parametrize("value", ["gs://bucket/a", "file:///a", "://a"])
def test_an_unknown_scheme_is_refused(value: str) -> None:
    with pytest.raises(
        SettingsError,
        match=r"TRITON_DIFFUSERS_STORE: .* expected a directory, oss://bucket/prefix or s3://bucket/prefix",
    ):
        open_store(Settings(store=value))


def test_a_directory_that_cannot_be_written_is_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(
        SettingsError, match=r"TRITON_DIFFUSERS_STORE: .*/file/results' is invalid: no results can be written"
    ):
        open_store(Settings(store=str(tmp_path / "file" / "results")))


@pytest.mark.parametrize("public", ["https://example.com/images", "https://example.com/images/"])
def test_urls_begin_with_the_public_one(root: Path, public: str) -> None:
    stored = save(LocalStore(root, public), "结果/with space/a_0.png")
    assert stored.image_url.startswith("https://example.com/images/%")
    assert stored.image_url.isascii()
    assert unquote(stored.image_url) == "https://example.com/images/结果/with space/a_0.png"
    assert Path(unquote(urlsplit(stored.oss_url).path)).read_bytes() == b"data"


def test_locations_in_a_mounted_bucket_are_those_of_the_bucket(tmp_path: Path) -> None:
    settings = Settings(store=str(tmp_path), store_location="oss://bucket/a/")
    store = open_store(settings)
    assert isinstance(store, LocalStore)
    stored = save(store, "result/a_0.png")
    assert stored.oss_url == store.locate("result/a_0.png").oss_url == "oss://bucket/a/result/a_0.png"
    assert stored.image_url == (tmp_path / "result" / "a_0.png").as_uri()
    with pytest.raises(SettingsError, match="TRITON_DIFFUSERS_STORE_LOCATION: 'bucket' is invalid"):
        Settings.read({"store_location": "bucket"})


def test_a_name_is_written_once(root: Path, store: LocalStore) -> None:
    save(store)
    with pytest.raises(NameTaken, match=r"result/a_0\.png is in the store already"):
        save(store, data=b"other")
    assert files(root) == {"result/a_0.png": b"data"}


@pytest.mark.parametrize("links", [True, False])
def test_of_many_writers_of_one_name_one_wins(
    root: Path, store: LocalStore, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not links:
        _no_links(monkeypatch)
    start = threading.Barrier(8)

    def write(number: int) -> bool:
        start.wait()
        try:
            save(store, data=b"%d" % number * 10_000)
        except NameTaken:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(write, range(8)))
    assert sum(won) == 1
    assert files(root) == {"result/a_0.png": b"%d" % won.index(True) * 10_000}


def _no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)


def test_a_file_system_without_links_will_do(root: Path, store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    _no_links(monkeypatch)
    save(store)
    with pytest.raises(NameTaken):
        save(store, data=b"other")
    assert files(root) == {"result/a_0.png": b"data"}


def test_a_dangling_link_counts_as_taken(root: Path, store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "result").mkdir()
    (root / "result/a_0.png").symlink_to(root / "nowhere")
    with pytest.raises(NameTaken):
        save(store)
    _no_links(monkeypatch)
    with pytest.raises(NameTaken):
        save(store)
    assert files(root) == {}


def test_discarded_images_are_deleted(root: Path, store: LocalStore) -> None:
    stored = save(store)
    save(store, "result/b_0.png")
    store.discard(stored)
    store.discard(stored)
    assert files(root) == {"result/b_0.png": b"data"}


@pytest.fixture
def small_files() -> Iterator[None]:
    """Files cannot grow past 100 kB, as on a full disk: a write stops in the middle, and the next one fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.usefixtures("small_files")
def test_a_disk_that_is_full_leaves_nothing(root: Path, store: LocalStore) -> None:
    with pytest.raises(StorageFailure, match=r"result/a_0\.png cannot be stored: File too large"):
        save(store, data=bytes(100_001))
    assert files(root) == {}
    save(store, data=bytes(100_000))


@pytest.mark.parametrize("call", [1, 2])  # the file's, the folder's
def test_an_image_that_cannot_be_synced_is_not_stored(
    root: Path, store: LocalStore, call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = os.fsync, []

    def fsync(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StorageFailure, match="No space left on device"):
        save(store)
    assert files(root) == {}


@pytest.mark.parametrize("folder", ["out", "out/deeper", "round/a", "result/a_0.png", "result/a_0.png/b"])
def test_a_folder_that_is_not_in_the_store_is_refused(
    root: Path, store: LocalStore, tmp_path: Path, folder: str
) -> None:
    save(store)
    (tmp_path / "elsewhere").mkdir()
    (root / "out").symlink_to(tmp_path / "elsewhere")
    (root / "round").symlink_to(root / "round")
    with pytest.raises(InvalidRequest, match="save_dir") as caught:
        save(store, f"{folder}/b_0.png")
    assert str(tmp_path) not in str(caught.value)
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert files(root) == {"result/a_0.png": b"data"}


def test_a_link_inside_the_store_is_followed(root: Path, store: LocalStore) -> None:
    (root / "real").mkdir()
    (root / "alias").symlink_to("real")
    stored = save(store, "alias/a_0.png")
    assert files(root)["real/a_0.png"] == b"data"
    store.discard(stored)
    assert "real/a_0.png" not in files(root)


def test_a_store_that_is_a_link_itself_is_one(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "results").symlink_to("disk")
    save(LocalStore(tmp_path / "results"))
    assert files(tmp_path / "disk") == {"result/a_0.png": b"data"}


WRITER = """
import os, sys
from pathlib import Path
from triton_diffusers.storage import local
store = local.LocalStore(Path(sys.argv[1]))
def stop(descriptor):
    print("writing", flush=True)
    sys.stdin.read()
os.fsync = stop
store.save("result/a_0.png", b"half", "image/png")
"""


def test_a_killed_writer_leaves_nothing_but_a_temporary_file_for_the_next_start(root: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(root)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        LocalStore(root)  # must not touch what is being written
        (left,) = files(root)
        assert left.startswith(".incoming/")
        process.kill()
    assert files(root) == {left: b"half"}
    LocalStore(root)
    assert files(root) == {}


def test_a_swept_temporary_file_is_created_again(
    root: Path, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, swept = fcntl.flock, []

    def flock(descriptor: int, operation: int) -> None:
        if not swept:
            (path,) = (root / ".incoming").iterdir()
            path.unlink()
            swept.append(path)
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    save(store)
    assert swept
    assert files(root) == {"result/a_0.png": b"data"}


def test_starting_stores_do_not_disturb_one_that_writes(root: Path, store: LocalStore) -> None:
    end = time.monotonic() + 0.5
    with ThreadPoolExecutor(1) as pool:

        def restart() -> None:
            while time.monotonic() < end:
                LocalStore(root)

        restarting = pool.submit(restart)
        count = 0
        while time.monotonic() < end:
            save(store, f"result/{count}.png", b"x" * 5000)
            count += 1
        restarting.result()
    assert set(files(root)) == {f"result/{number}.png" for number in range(count)}


def test_trial_leaves_nothing_and_tells_of_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(tmp_path)
    store.try_out()
    assert [path.name for path in tmp_path.rglob("*")] == [".incoming"]

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(SettingsError, match=r"STORE: .* is invalid: .* \(No space left on device\)"):
        store.try_out()


def test_store_may_be_below_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    store = open_store(Settings(store="~/results"))
    assert store is not None
    assert store.save("a/b.png", b"data", "image/png").oss_url == (tmp_path / "results/a/b.png").as_uri()
