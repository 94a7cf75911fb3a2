"""Names of results, and the folders that a request may choose."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.conftest import request_for
from triton_diffusers.api.request import OutputFormat
from triton_diffusers.api.save_dir import check_save_dir
from triton_diffusers.errors import InvalidRequest
from triton_diffusers.storage.names import result_names

NOW = datetime(2026, 3, 4, 5, 6, 7, 891011, UTC)


@pytest.mark.parametrize(
    "value",
    [
        *("result", "a/b/c", "2026-01", "user_1/run.2", "with space", "-", "a..b", "x" * 200),
        *("结果/图片", "été", "हिन्दी", "ภาษาไทย", "עברית", "한국어", "🎈", "a🎈b", "👩\u200d🎨", "👍🏽", "❤\ufe0f"),
    ],
)
def test_a_plain_folder_is_taken_as_it_is(value: str) -> None:
    assert check_save_dir(value) == value


@pytest.mark.parametrize(
    "value",
    [
        "",
        ".",
        "..",
        "/",
        "/etc",
        "a/../b",
        "../a",
        "a/..",
        "a/./b",
        "a//b",
        "a/",
        "a\0b",
        "a\nb",
        "a\x7fb",
        "a\x85b",
        "a\\b",
        "..\\a",
        "C:",
        "C:/a",
        "c:a",
        "~",
        "~root/a",
        "$HOME",
        "%2e%2e/a",
        "a?b",
        "a#b",
        "a*",
        "oss://bucket/a",
        ".hidden",
        "a/.ssh",
        ".incoming",
        " a",
        "a ",
        "a.",
        "a /b",
        "\u2024\u2024/a",  # one-dot leaders, which NFKC makes ".."
        "\u2025/a",  # two-dot leader
        "\uff0e\uff0e",  # full-width dots
        "a\uff0fb",  # full-width slash
        "a\u2215b",  # division slash
        "a\u29f8b",  # big solidus
        "a\uff3cb",  # full-width backslash
        "\uff21",  # full-width letter
        "\u0301a",  # a mark without its letter
        "a\u200db",  # a joiner between letters
        "\u200d🎈",
        "^",
        "a\u200bb",  # zero-width space
        "a\u202eb",  # right-to-left override
        "a\u00a0b",  # no-break space
        "a\u3000b",  # ideographic space
        "\u115f",  # an invisible letter
        "\u3164",  # another
        "a\ufe0f",  # variation selector
        "\ud800",  # half a surrogate pair
        "\U000e0061",  # a tag
        "x" * 201,
        "图" * 67,
    ],
)
def test_invalid_folders_are_refused(value: str) -> None:
    with pytest.raises(InvalidRequest, match=r"save_dir: .* is invalid: a relative path") as caught:
        check_save_dir(value)
    assert caught.value.field == "save_dir"
    assert len(str(caught.value).encode(errors="replace")) < 400


@given(st.text(alphabet=st.sampled_from("ab./\\ ~:\0\u2024\uff0e\uff0f。图-_"), max_size=12) | st.text(max_size=12))
def test_accepted_folders_stay_below_the_root(value: str) -> None:
    try:
        value = check_save_dir(value)
    except InvalidRequest:
        return
    for path in (PurePosixPath(value), PureWindowsPath(value)):
        assert not path.is_absolute()
        assert not path.drive
        assert not any(part.startswith(".") for part in path.parts)
    assert PurePosixPath(value).as_posix() == value
    assert value.replace("\u200d", "").isprintable()


def test_save_dir_in_decomposed_letters_is_composed() -> None:
    assert check_save_dir("cafe\u0301") == "café"


def test_names_say_task_time_and_image() -> None:
    request = request_for(task_id="t-1", save_dir="a/b", image_num=3)
    assert result_names(request, NOW) == [f"a/b/t-1_20260304_050607_{index}.png" for index in range(3)]
    assert result_names(request, NOW, "beef")[2] == "a/b/t-1_20260304_050607-beef_2.png"


@pytest.mark.parametrize(("output_format", "ending"), [("png", "png"), ("jpeg", "jpg"), ("webp", "webp")])
def test_the_ending_is_the_formats(output_format: str, ending: str) -> None:
    (name,) = result_names(request_for(output_format=OutputFormat(output_format)), NOW)
    assert name == f"result/a-task_20260304_050607_0.{ending}"


def test_the_longest_name_fits_a_file_system_and_oss() -> None:
    (name,) = result_names(request_for(task_id="x" * 128, save_dir="y" * 200), NOW, "f" * 8)
    assert len(name.rpartition("/")[2]) <= 255
    assert len(name) <= 512
