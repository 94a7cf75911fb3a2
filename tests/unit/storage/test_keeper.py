"""All pictures of a request are kept, or none."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from tests.unit.conftest import request_for
from triton_diffusers.errors import InvalidRequest, StorageFailure
from triton_diffusers.request import OutputFormat
from triton_diffusers.storage import NameTaken, ResultKeeper, StoredResult

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
PICTURES = [b"one", b"two", b"three"]


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
    assert ResultKeeper(None).keep(request_for(image_num=3), PICTURES) == ()


def test_pictures_are_kept_in_their_order() -> None:
    store = MemoryStore()
    stored = keeper(store).keep(request_for(image_num=3, output_format=OutputFormat.JPEG), PICTURES)
    assert [result.name for result in stored] == [f"result/a-task_20260304_050607_{index}.jpg" for index in range(3)]
    assert [store.kept[result.name] for result in stored] == [(data, "image/jpeg") for data in PICTURES]


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
    # The pictures of one request bear the same name but for their number.
    assert names[2].removesuffix("_0.png") == names[3].removesuffix("_1.png")


def test_a_name_that_is_taken_for_a_later_picture_moves_them_all() -> None:
    store = MemoryStore()
    other = "result/a-task_20260304_050607_1.png"
    store.kept[other] = (b"other", "image/png")
    stored = keeper(store).keep(request_for(image_num=2), [b"a", b"b"])
    assert store.kept.keys() == {other, *(result.name for result in stored)}
    assert store.kept[other][0] == b"other"


@pytest.mark.parametrize("error", [StorageFailure("full"), InvalidRequest("save_dir", "x", "no"), KeyboardInterrupt()])
def test_when_one_picture_fails_none_is_left(error: Exception) -> None:
    store = MemoryStore(lambda name: error if name.endswith("_2.png") else None)
    with pytest.raises(type(error)):
        keeper(store).keep(request_for(image_num=3), PICTURES)
    assert store.kept == {}


def test_what_cannot_be_removed_is_logged_and_the_first_error_told(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore(lambda name: StorageFailure("the disk is full") if name.endswith("_2.png") else None)
    store.removable = False
    with caplog.at_level(logging.ERROR), pytest.raises(StorageFailure, match="the disk is full"):
        keeper(store).keep(request_for(image_num=3), PICTURES)
    assert [f"050607_{index}.png is left" in message for index, message in enumerate(caplog.messages)] == [True, True]


def test_a_store_where_every_name_is_taken_ends_the_search() -> None:
    with pytest.raises(StorageFailure, match="no free name was found for the results of a-task"):
        keeper(MemoryStore(NameTaken)).keep(request_for(), [b"one"])
