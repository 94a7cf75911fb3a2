"""The training data: npm packages, fetched once into a cache folder.

- `@lobehub/fluent-emoji-3d`: Microsoft's Fluent Emoji (MIT), 256x256 RGBA webp, one file per code point sequence.
- `emojibase-data`: names and tags (MIT). The names in `subjects.txt` follow it; the tags are stray words of captions.
- `@iconify-json/fluent-emoji-*`: Fluent Emoji in two more styles (MIT), a JSON of SVG bodies each, for the LoRAs.
"""

import json
import os
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

DEFAULT_CACHE = Path(os.environ.get("EMOJI_CACHE", Path.home() / ".cache" / "emoji-training"))
PICTURES_PACKAGE = "@lobehub/fluent-emoji-3d@1.1.0"
NAMES_PACKAGE = "emojibase-data@17.0.0"
ICON_PACKAGES = {
    "flat": "@iconify-json/fluent-emoji-flat@1.2.6",
    "high-contrast": "@iconify-json/fluent-emoji-high-contrast@1.2.6",
}
"""By style."""
SKIN_TONES = ("1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff")


@dataclass(frozen=True)
class Assets:
    """Unpacked packages under `cache`."""

    cache: Path

    @property
    def pictures_folder(self) -> Path:
        return self.cache / "pictures" / "package" / "assets"

    @property
    def names_folder(self) -> Path:
        return self.cache / "names" / "package"

    def icons_folder(self, style: str) -> Path:
        return self.cache / style / "package"

    def fetch(self) -> None:
        """Fetch with `npm pack` what the cache lacks."""
        if not self.pictures_folder.is_dir():
            npm_unpack(PICTURES_PACKAGE, self.cache / "pictures")
        if not self.names_folder.is_dir():
            npm_unpack(NAMES_PACKAGE, self.cache / "names")
        for style, package in ICON_PACKAGES.items():
            if not self.icons_folder(style).is_dir():
                npm_unpack(package, self.cache / style)

    def picture_path(self, hexcode: str) -> Path:
        """Return the webp of a code point sequence. Some files carry the emoji variation selector, some do not."""
        name = hexcode.lower()
        for candidate in (name, f"{name}-fe0f"):
            path = self.pictures_folder / f"{candidate}.webp"
            if path.is_file():
                return path
        raise FileNotFoundError(f"no picture of {hexcode} in {self.pictures_folder}")

    def all_picture_paths(self) -> list[Path]:
        """Every picture without a skin tone modifier, sorted."""
        paths = sorted(self.pictures_folder.glob("*.webp"))
        return [path for path in paths if not any(tone in path.stem for tone in SKIN_TONES)]

    def tags(self) -> list[str]:
        """Every English tag of every emoji, sorted."""
        records = json.loads((self.names_folder / "en" / "data.json").read_text(encoding="utf-8"))
        return sorted({tag for record in records for tag in record.get("tags", ())})


def npm_unpack(package: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(["npm", "pack", "--silent", package], cwd=scratch, check=True)
        (archive,) = Path(scratch).glob("*.tgz")
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
