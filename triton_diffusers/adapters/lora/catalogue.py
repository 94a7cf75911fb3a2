"""Find LoRA files of a model directory by name, as ``<lora:name:weight>`` in a prompt gives them."""

from __future__ import annotations

import os
import unicodedata
from difflib import get_close_matches
from pathlib import Path, PurePosixPath

from triton_diffusers.adapters.places import LORA_SUFFIXES, lora_folders, loras_among
from triton_diffusers.errors import InvalidRequest, NotFound, shown

_MAX_COMPARED = 1000  # names, to find similar ones
_MAX_NEAR = 3
_MAX_SHOWN = 64  # characters of a compared name


class LoraCatalogue:
    """Finds LoRAs by name; new files are found at once. Not thread-safe."""

    def __init__(self, model_dir: Path) -> None:
        self._root = model_dir
        self._files: list[str] = []
        self._seen: dict[str, int] = {}

    def find(self, field: str, name: str) -> str:
        """Return the path, relative to the model directory, of the LoRA that a tag in ``field`` names.

        A name is a file's, with or without its suffix and the folders before it; capitals matter only where two names
        differ by case only. A folder that holds ``pytorch_lora_weights.safetensors`` has the folder's name.

        Raises: NotFound: no file has the name. InvalidRequest: several files have it.
        """
        files = self._listed()
        wanted = _plain(name)
        found = [file for file in files if wanted in _names(file)]
        if not found:
            found = [file for file in files if wanted.casefold() in map(str.casefold, _names(file))]
        if not found:
            raise NotFound(f"{field}: LoRA {shown(name)} not found in lora/, loras/ or lycoris/{_hint(wanted, files)}")
        if len(found) > 1:
            known = ", ".join(map(shown, found[:_MAX_NEAR]))
            raise InvalidRequest(field, name, f"several LoRAs have this name; write the path of one: {known}")
        return found[0]

    def _listed(self) -> list[str]:
        """Return the paths of all LoRAs, listed again if a folder has changed."""
        tops = {folder: _modified(folder) for folder in lora_folders(self._root)}
        known = {folder: _modified(folder) for folder in self._seen}
        if not self._seen or known != self._seen or not tops.keys() <= known.keys():
            self._seen, self._files = {}, []
            for top in tops:
                self._list(top)
        return self._files

    def _list(self, top: str) -> None:
        for folder, _, names in os.walk(top):
            self._seen[folder] = _modified(folder)
            place = PurePosixPath(Path(folder).relative_to(self._root).as_posix())
            self._files.extend(loras_among(names, place, is_top=folder == top))


def _modified(folder: str) -> int:
    try:
        return Path(folder).stat().st_mtime_ns
    except OSError:
        return -1


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name.strip().replace("\\", "/"))


def _names(file: str) -> list[str]:
    """Return the names by which a file is found."""
    parts = PurePosixPath(_plain(file)).parts
    whole = ["/".join(parts[first:]) for first in range(len(parts))]
    bare = [name.removesuffix(suffix) for name in whole for suffix in LORA_SUFFIXES if name.endswith(suffix)]
    return [*whole, *bare]


def _hint(wanted: str, files: list[str]) -> str:
    names = {_bare(file): None for file in files[:_MAX_COMPARED]}
    lowered = {name.casefold(): name for name in names}
    near = get_close_matches(PurePosixPath(wanted).name.casefold()[:_MAX_SHOWN], lowered, n=_MAX_NEAR, cutoff=0.5)
    return f"; did you mean {' or '.join(lowered[name] for name in near)}?" if near else ""


def _bare(file: str) -> str:
    name = PurePosixPath(file).name
    return next((name.removesuffix(suffix) for suffix in LORA_SUFFIXES if name.endswith(suffix)), name)
