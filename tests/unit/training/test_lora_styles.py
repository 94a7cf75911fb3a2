import json
from pathlib import Path

import pytest

from training.emoji.lora_styles import WHITE, IconSet, style_pictures
from training.emoji.subjects import Subject

SQUARE = '<path fill="currentColor" d="M8 8h16v16H8z"/>'
DISC, SHELL = Subject("26AA-FE0F", ("disc",), ("盘",)), Subject("1F41A", ("shell",), ("贝壳",))


@pytest.fixture
def icons(tmp_path: Path) -> IconSet:
    tall = {"body": '<path fill="#ff0000" d="M0 0h32v64H0z"/>', "height": 64}
    (tmp_path / "icons.json").write_text(
        json.dumps({"prefix": "set", "width": 32, "height": 32, "icons": {"disc": {"body": SQUARE}, "shell": tall}})
    )
    (tmp_path / "chars.json").write_text(json.dumps({"26aa": "disc", "1f41a": "shell", "1f41b": "nowhere"}))
    return IconSet(tmp_path)


def test_pictures_are_premultiplied_and_of_the_models_size(icons: IconSet) -> None:
    disc, shell = style_pictures(icons, [DISC, SHELL])
    assert disc.shape == (4, 128, 128)
    assert disc[:, 64, 64].tolist() == [0, 0, 0, 255]
    assert disc[:, 10, 10].tolist() == [0, 0, 0, 0]
    # Taller than wide: scaled to fit, in the middle.
    assert shell[:, 2, 64].tolist() == [255, 0, 0, 255]
    assert shell[3, 64, 20] == 0


def test_ink_is_the_current_colour(icons: IconSet) -> None:
    assert style_pictures(icons, [DISC], WHITE)[0, :, 64, 64].tolist() == [255, 255, 255, 255]


def test_subjects_without_an_icon_are_named(icons: IconSet) -> None:
    with pytest.raises(ValueError, match="no icon in set: bug, fox"):
        style_pictures(icons, [DISC, Subject("1F41B", ("bug",), ("虫",)), Subject("1F98A", ("fox",), ("狐狸",))])
