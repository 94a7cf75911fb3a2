"""A Python whose file names are ASCII, as Triton's stub starts it, is switched to UTF-8."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from triton_diffusers.util import utf8
from triton_diffusers.util.utf8 import use_utf8

# Ends up with the same codec as an interpreter with an isolated pre-configuration.
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
NAMES = ("模型", "café", "🎈", "cafe\u0301", "עברית")


def run_in_ascii(program: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    start = (
        "import sys; assert sys.getfilesystemencoding() == 'ascii'\nfrom triton_diffusers.util.utf8 import use_utf8\n"
    )
    return subprocess.run(
        [sys.executable, "-", *arguments],
        input=(start + program).encode(),
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), **ASCII, **variables},
        capture_output=True,
        timeout=60,
    )


def test_names_of_all_scripts_are_read_and_written(tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / name).write_text(name, encoding="utf-8")
    (tmp_path / os.fsdecode(b"\xb9\xfa")).touch()
    program = """
import os
from pathlib import Path
use_utf8()
folder = Path(os.environ["FOLDER"])
names = sorted(path.name for path in folder.iterdir())
assert names == sorted([*os.environ["NAMES"].split(","), "\\udcb9\\udcfa"]), names
for name in names[:-1]:
    assert (folder / name).read_text() == name or name == "\\udcb9\\udcfa"
(folder / "新").mkdir()
assert (folder / "新").as_uri().endswith("%E6%96%B0")
assert os.fsencode("新") == "新".encode()
assert os.fsdecode("新".encode() + b"\\xff") == "新\\udcff"
os.environ["新"] = "é"
import subprocess
assert subprocess.check_output(["printenv", "新"]) == "é\\n".encode()
print("新")
"""
    done = run_in_ascii(program, FOLDER=str(tmp_path), NAMES=",".join(NAMES))
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode() == "新\n"
    assert (tmp_path / "新").is_dir()


def test_modules_are_imported_from_a_folder_of_any_name(tmp_path: Path) -> None:
    (tmp_path / "模型").mkdir()
    (tmp_path / "模型" / "of_that_folder.py").write_text("WHERE = __file__\n")
    program = "sys.path.append(sys.argv[1])\nuse_utf8()\nimport of_that_folder\nprint(of_that_folder.WHERE)"
    done = run_in_ascii(program, str(tmp_path / "模型"))
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().strip() == str(tmp_path / "模型" / "of_that_folder.py")


def test_python_in_utf8_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utf8, "_file_name_codec", pytest.fail)
    use_utf8()


def test_interpreter_that_is_not_understood_is_an_error() -> None:
    done = run_in_ascii(
        "from triton_diffusers.util import utf8\nutf8._MAX_STATE_BYTES = 64\n"
        "try: use_utf8()\nexcept OSError as error: print(error, sys.getfilesystemencoding())"
    )
    assert (
        b"the codec of file names was not found in this Python; CPython 3.11 to 3.13 is expected ascii" in done.stdout
    )
