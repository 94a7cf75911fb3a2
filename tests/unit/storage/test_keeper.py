"""All images of a request are kept, or none."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.unit.conftest import request_for
from triton_diffusers.api.request import OutputFormat
from triton_diffusers.errors import InvalidRequest, StorageFailure
from triton_diffusers.settings import Settings
from triton_diffusers.storage import NameTaken, Patience, ResultKeeper, StoreAway, StoredResult, UnstoredFolder

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
IMAGES = [b"one", b"two", b"three"]


class MemoryStore:
    """A store that fails when it is told to."""

    def __init__(self, fault: Callable[[str], Exception | None] = lambda name: None) -> None:
        self.kept: dict[str, tuple[bytes, str]] = {}
        self.fault = fault
        self.removable = True

    def save(self, name: str, data: bytes, content_type: str) -> StoredResult:
        if name in self.kept:
            raise NameTaken(name)
        if error := self.fault(name):
            raise error
        self.kept[name] = (data, content_type)
        return StoredResult(name, f"https://example.com/{name}", f"oss://bucket/{name}")

    def discard(self, stored: StoredResult) -> None:
        if not self.removable:
            raise StorageFailure("no")
        del self.kept[stored.name]


def keeper(store: MemoryStore) -> ResultKeeper:
    return ResultKeeper(store, clock=lambda: NOW)


def test_without_a_store_nothing_is_kept() -> None:
    assert ResultKeeper(None).keep(request_for(image_num=3), IMAGES) == ()


def test_images_are_kept_in_their_order() -> None:
    store = MemoryStore()
    stored = keeper(store).keep(request_for(image_num=3, output_format=OutputFormat.JPEG), IMAGES)
    assert [result.name for result in stored] == [f"result/a-task_20260304_050607_{index}.jpg" for index in range(3)]
    assert [store.kept[result.name] for result in stored] == [(data, "image/jpeg") for data in IMAGES]


def test_names_carry_the_time_in_utc() -> None:
    before = datetime.now(UTC)
    (stored,) = ResultKeeper(MemoryStore()).keep(request_for(), [b"one"])
    named = datetime.strptime(stored.name, "result/a-task_%Y%m%d_%H%M%S_0.png").replace(tzinfo=UTC)
    assert before.replace(microsecond=0) <= named <= datetime.now(UTC)


def test_two_requests_with_one_task_id_in_one_second_get_names_of_their_own() -> None:
    store = MemoryStore()
    keep = keeper(store).keep
    names = [result.name for _ in range(3) for result in keep(request_for(image_num=2), [b"a", b"b"])]
    assert len(set(names)) == 6
    assert names[:2] == ["result/a-task_20260304_050607_0.png", "result/a-task_20260304_050607_1.png"]
    assert store.kept.keys() == set(names)
    # The images of one request bear the same name but for their number.
    assert names[2].removesuffix("_0.png") == names[3].removesuffix("_1.png")


def test_a_name_that_is_taken_for_a_later_image_moves_them_all() -> None:
    store = MemoryStore()
    other = "result/a-task_20260304_050607_1.png"
    store.kept[other] = (b"other", "image/png")
    stored = keeper(store).keep(request_for(image_num=2), [b"a", b"b"])
    assert store.kept.keys() == {other, *(result.name for result in stored)}
    assert store.kept[other][0] == b"other"


@pytest.mark.parametrize("error", [StorageFailure("full"), InvalidRequest("save_dir", "x", "no"), KeyboardInterrupt()])
def test_a_failed_image_removes_the_others(error: Exception) -> None:
    store = MemoryStore(lambda name: error if name.endswith("_2.png") else None)
    with pytest.raises(type(error)):
        keeper(store).keep(request_for(image_num=3), IMAGES)
    assert store.kept == {}


def test_images_that_cannot_be_removed_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore(lambda name: StorageFailure("the disk is full") if name.endswith("_2.png") else None)
    store.removable = False
    with caplog.at_level(logging.ERROR), pytest.raises(StorageFailure, match="the disk is full"):
        keeper(store).keep(request_for(image_num=3), IMAGES)
    assert [f"050607_{index}.png is left" in message for index, message in enumerate(caplog.messages)] == [True, True]


def test_a_store_where_every_name_is_taken_ends_the_search() -> None:
    with pytest.raises(StorageFailure, match="no free name was found for the results of a-task"):
        keeper(MemoryStore(NameTaken)).keep(request_for(), [b"one"])


@pytest.fixture
def unstored(tmp_path: Path) -> UnstoredFolder:
    return UnstoredFolder(tmp_path / "unstored", 1000)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses are not waited for."""
    monkeypatch.setattr("triton_diffusers.storage.keeper._MIN_PAUSE_SECONDS", 0.0)


def held(unstored: UnstoredFolder) -> list[bytes]:
    return [path.read_bytes() for path in sorted(unstored._folder.rglob("*.png"))]


@pytest.mark.usefixtures("at_once")
def test_store_that_comes_back_gets_the_images(unstored: UnstoredFolder) -> None:
    reported: list[str] = []
    held_meanwhile: list[list[bytes]] = []
    faults = iter([StoreAway("away"), StoreAway("away still"), None, None, None])

    def fault(name: str) -> Exception | None:
        held_meanwhile.append(held(unstored))
        return next(faults)

    store = MemoryStore(fault)
    stored = ResultKeeper(store, unstored).keep(
        request_for(image_num=3), IMAGES, Patience(seconds=60, report=reported.append)
    )
    assert [store.kept[result.name][0] for result in stored] == IMAGES
    assert reported == ["waiting for the store: away", "waiting for the store: away still"]
    # A process that is killed meanwhile loses nothing.
    assert held_meanwhile == [[], *[IMAGES] * 4]
    assert held(unstored) == []


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(("error", "seconds"), [(StoreAway("away"), 0.05), (StorageFailure("no such bucket"), 60)])
def test_images_stay_held_and_the_error_says_where(
    unstored: UnstoredFolder, error: Exception, seconds: float, caplog: pytest.LogCaptureFixture
) -> None:
    store = MemoryStore(lambda name: error if name.endswith("_1.png") else None)
    with pytest.raises(StorageFailure) as caught:
        ResultKeeper(store, unstored).keep(request_for(image_num=3), IMAGES, Patience(seconds=seconds))
    assert store.kept == {}
    assert held(unstored) == IMAGES
    first = min(unstored._folder.rglob("*.png"))
    assert str(caught.value) == f"{error}; on the server, the images are held as {first} and 2 more there"
    assert str(first) in caplog.text


@pytest.mark.usefixtures("at_once")
def test_result_that_nobody_wants_any_more_is_not_held(unstored: UnstoredFolder) -> None:
    patience = Patience(seconds=60, is_wanted=lambda: False)
    with pytest.raises(StoreAway):
        ResultKeeper(MemoryStore(lambda name: StoreAway("away")), unstored).keep(request_for(), [b"one"], patience)
    assert held(unstored) == []


def test_server_that_stops_waits_no_longer_and_holds_the_images(unstored: UnstoredFolder) -> None:
    with pytest.raises(StorageFailure, match="away; on the server, the images are held as "):
        ResultKeeper(MemoryStore(lambda name: StoreAway("away")), unstored).keep(
            request_for(), [b"one"], Patience(seconds=600, is_stopping=lambda: True)
        )
    assert held(unstored) == [b"one"]


def test_held_images_are_bounded(unstored: UnstoredFolder) -> None:
    keeper = ResultKeeper(MemoryStore(lambda name: StorageFailure("no")), unstored)
    for _ in range(2):
        with pytest.raises(StorageFailure, match="held as"):
            keeper.keep(request_for(), [b"x" * 500])
    with pytest.raises(
        StorageFailure, match=r"no; the images are lost: .*/unstored has no room \(unstored_megabytes\)"
    ):
        keeper.keep(request_for(), [b"x"])
    assert held(unstored) == [b"x" * 500] * 2


def test_invalid_save_dir_is_not_held(unstored: UnstoredFolder) -> None:
    with pytest.raises(InvalidRequest):
        ResultKeeper(MemoryStore(lambda name: InvalidRequest("save_dir", "x", "no")), unstored).keep(
            request_for(), [b"one"]
        )
    assert held(unstored) == []


def test_unstored_folder_is_named_for_the_store(tmp_path: Path) -> None:
    settings = Settings(cache_dir=tmp_path, store="oss://bucket/图/b")
    assert UnstoredFolder.of(settings)._folder == tmp_path / "unstored" / "oss_bucket_图_b"
    elsewhere = Settings(cache_dir=tmp_path, store="results", unstored_dir=str(tmp_path / "other"))
    assert UnstoredFolder.of(elsewhere)._folder == tmp_path / "other" / "results"
    assert list(tmp_path.iterdir()) == []
