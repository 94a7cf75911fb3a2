"""The subjects that the model draws: an emoji each, with English and Chinese names."""

from dataclasses import dataclass
from pathlib import Path

SUBJECTS_FILE = Path(__file__).with_name("subjects.txt")


@dataclass(frozen=True)
class Subject:
    """One emoji: its code points in hex and its names, the name of record first."""

    hexcode: str
    names: tuple[str, ...]
    chinese: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.names[0]


def load_subjects(path: Path = SUBJECTS_FILE) -> tuple[Subject, ...]:
    """Return the subjects of `path`, one a line: `hexcode ; names ; Chinese names`. Raises ValueError with the line."""
    subjects = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = [field.strip() for field in line.split(";")]
        if len(fields) != 3 or not all(fields):
            raise ValueError(f"{path.name}:{number}: expected 'hexcode ; names ; Chinese names', got {line!r}")
        hexcode, names, chinese = fields
        subjects.append(Subject(hexcode, _split(names), _split(chinese)))
    return tuple(subjects)


def _split(names: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in names.split(","))
