"""Sheets of pictures with their prompts, to look at."""

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw

MARGIN = 4
CAPTION_HEIGHT = 14


def make_sheet(pictures: Sequence[Image.Image], captions: Sequence[str] = (), columns: int = 12) -> Image.Image:
    """Pictures of one size in rows of `columns`, each over its caption if there are captions."""
    width, height = pictures[0].size
    cell_width = width + MARGIN
    cell_height = height + MARGIN + (CAPTION_HEIGHT if captions else 0)
    rows = math.ceil(len(pictures) / columns)
    sheet = Image.new("RGB", (columns * cell_width + MARGIN, rows * cell_height + MARGIN), (226, 228, 232))
    draw = ImageDraw.Draw(sheet)
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        corner = (MARGIN + column * cell_width, MARGIN + row * cell_height)
        sheet.paste(picture, corner)
        if captions:
            draw.text((corner[0] + 1, corner[1] + height), captions[index][: width // 6], fill=(40, 40, 40))
    return sheet
