from PIL import Image

from training.emoji.sheet import CAPTION_HEIGHT, MARGIN, make_sheet


def test_a_sheet_has_room_for_every_picture_and_caption() -> None:
    pictures = [Image.new("RGB", (32, 32), colour) for colour in ("red", "green", "blue")]
    sheet = make_sheet(pictures, ["one", "two", "three"], columns=2)
    assert sheet.size == (2 * (32 + MARGIN) + MARGIN, 2 * (32 + MARGIN + CAPTION_HEIGHT) + MARGIN)
    assert sheet.getpixel((MARGIN + 1, MARGIN + 1)) == (255, 0, 0)
