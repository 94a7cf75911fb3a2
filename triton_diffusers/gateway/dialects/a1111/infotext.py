"""The text of parameters that images carry: reading it from an image, and its pairs."""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass

from PIL import ExifTags, Image, UnidentifiedImageError

from triton_diffusers.errors import InvalidImage
from triton_diffusers.images.formats import expected_formats, readable_formats

_PAIR = re.compile(r'\s*+(?P<key>[A-Za-z][\w ./-]{0,63}+):\s*+(?P<value>"(?:[^"\\]|\\.)*+"|[^,]*+)(?:,|$)')
_UNICODE = b"UNICODE\0"
_NAME = "parameters"


@dataclass(frozen=True, slots=True)
class ImageTexts:
    """Texts in an image: its parameters, and the others by name."""

    parameters: str
    others: dict[str, str]


def texts_of(field: str, data: bytes) -> ImageTexts:
    """Return the texts of an encoded image, whose pixels are not decoded. Raises: InvalidImage."""
    try:
        with Image.open(io.BytesIO(data), formats=readable_formats()) as image:
            texts = {str(name): text for name, text in image.info.items() if isinstance(text, str)}
            if _NAME not in texts:
                texts[_NAME] = _user_comment(image)
    except UnidentifiedImageError as error:
        raise InvalidImage(field, f"{len(data)} bytes", f"must be an image: {expected_formats()}") from error
    except Exception as error:  # Pillow's readers raise many kinds of errors for damaged content
        raise InvalidImage(field, f"{len(data)} bytes", f"cannot be read ({type(error).__name__})") from error
    return ImageTexts(texts.pop(_NAME), texts)


def pairs_of(infotext: str) -> dict[str, str]:
    """Return the parameters of a text: the prompts, and the pairs of its last line; empty if it has none."""
    lines = infotext.strip().split("\n")
    pairs = {match["key"].strip(): _unquoted(match["value"]) for match in _PAIR.finditer(lines[-1])}
    if "Steps" not in pairs:
        return {}
    prompt, _, negative_prompt = "\n".join(lines[:-1]).partition("Negative prompt:")
    return {"Prompt": prompt.strip(), "Negative prompt": negative_prompt.strip(), **pairs}


def _unquoted(value: str) -> str:
    if not value.startswith('"'):
        return value.strip()
    try:
        return str(json.loads(value))
    except ValueError:
        return value


def _user_comment(image: Image.Image) -> str:
    comment = image.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment, b"")
    if not isinstance(comment, bytes) or not comment.startswith(_UNICODE):
        return ""
    return comment.removeprefix(_UNICODE).decode("utf-16-be", errors="replace")
