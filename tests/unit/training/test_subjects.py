from pathlib import Path

import pytest

from training.emoji.subjects import load_subjects


def test_the_list_is_long_and_without_doubles() -> None:
    subjects = load_subjects()
    assert len(subjects) >= 250
    assert len({subject.hexcode for subject in subjects}) == len(subjects)
    names = [name for subject in subjects for name in subject.names]
    assert len(set(names)) == len(names)
    chinese = [name for subject in subjects for name in subject.chinese]
    assert len(set(chinese)) == len(chinese)


def test_a_bad_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("# comment\n\n1F34E ; red apple\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"list\.txt:3: expected"):
        load_subjects(path)
