"""The command that fetches the preprocessors' weights."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.downloads.hubs import Hub
from triton_diffusers.cli import main as cli
from triton_diffusers.preprocess import PREPROCESSORS, WEIGHTS
from triton_diffusers.preprocess.registry import DEPTH, HED

ROOT = Path(__file__).resolve().parents[3]
EDGES, LINES = bytes(range(256)) * 50, bytes(range(255, -1, -1)) * 40
OPTIONS = ["--model-dir", "--to", "--force", "--dry-run"]


@pytest.fixture
def annotators(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    files = {"ControlNetHED.pth": EDGES, "sk_model.pth": LINES, "body_pose_model.pth": EDGES, "../evil.pth": b"x"}
    with Hub(files, HED.repository) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        yield hub


def fetch(*arguments: str | Path) -> int:
    return cli.main(["fetch-preprocessors", *map(str, arguments)])


def below(folder: Path) -> set[str]:
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in paths if ".cache" not in path.parts}


def test_a_shared_file_is_fetched_once(annotators: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fetch("hed", "scribble", "canny", "--model-dir", tmp_path) == 0
    root = tmp_path / "preprocessors"
    assert below(root) == {"annotators/ControlNetHED.pth"}
    assert (root / "annotators" / "ControlNetHED.pth").read_bytes() == EDGES
    assert capsys.readouterr().out.splitlines() == [
        "canny: needs no weights",
        "annotators/ControlNetHED.pth of lllyasviel/Annotators, for hed, scribble: fetched",
        f"folder: {root}",
    ]
    annotators.listings = 0
    assert fetch("hed", "--model-dir", tmp_path) == 0
    assert annotators.listings == 0, "what is there is not asked about"
    assert ": exists" in capsys.readouterr().out


def test_force_replaces_what_differs(annotators: Hub, tmp_path: Path) -> None:
    assert fetch("hed", "--to", tmp_path) == 0
    annotators.stored["ControlNetHED.pth"] = LINES
    assert fetch("hed", "--to", tmp_path) == 0
    assert (tmp_path / "annotators" / "ControlNetHED.pth").read_bytes() == EDGES
    assert fetch("hed", "--to", tmp_path, "--force") == 0
    assert (tmp_path / "annotators" / "ControlNetHED.pth").read_bytes() == LINES


def test_the_folder_of_the_setting(annotators: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_DIFFUSERS_PREPROCESSORS", str(tmp_path / "mine"))
    assert fetch("lineart") == 0
    assert below(tmp_path / "mine") == {"annotators/sk_model.pth"}
    assert fetch("lineart", "--model-dir", tmp_path / "model") == 0
    assert below(tmp_path / "model" / "preprocessors") == {"annotators/sk_model.pth"}, "what is said goes before"


@pytest.mark.parametrize(
    ("stored", "fetched"),
    [
        ({"model.safetensors", "pytorch_model.bin"}, "model.safetensors"),
        ({"pytorch_model.bin", "tf_model.h5"}, "pytorch_model.bin"),
    ],
)
def test_safetensors_where_there_are_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: set[str], fetched: str
) -> None:
    files = {"config.json": b"{}", "preprocessor_config.json": b"{}", "README.md": b"#"}
    with Hub(files | dict.fromkeys(stored, EDGES), DEPTH.repository) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        assert fetch("depth", "normal", "--to", tmp_path) == 0
    assert below(tmp_path) == {"depth/config.json", "depth/preprocessor_config.json", f"depth/{fetched}"}


def test_dry_run(annotators: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fetch("--dry-run", "--to", tmp_path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len({weights for needs in WEIGHTS.values() for weights in needs}) + 1
    assert "depth of Intel/dpt-hybrid-midas, for depth, normal: would be fetched (490 MB)" in lines
    assert (annotators.listings, below(tmp_path)) == (0, set())


def test_a_broken_download_is_resumed(annotators: Hub, tmp_path: Path) -> None:
    annotators.break_after["ControlNetHED.pth"] = 5000
    assert fetch("hed", "--to", tmp_path) == 0
    assert (tmp_path / "annotators" / "ControlNetHED.pth").read_bytes() == EDGES


def test_a_failed_file_does_not_stop_the_others(
    annotators: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is told, and the rest is fetched all the same."""
    annotators.damaged.add("ControlNetHED.pth")
    assert fetch("hed", "lineart", "mlsd", "depth", "--to", tmp_path) == 1
    told = capsys.readouterr().out
    assert (
        "not fetched: hf://lllyasviel/Annotators: ControlNetHED.pth was damaged during the download: its SHA-256"
        in told
    )
    assert "not fetched: hf://lllyasviel/Annotators has no mlsd_large_512_fp32.pth" in told
    assert "not fetched: hf://Intel/dpt-hybrid-midas does not exist, or requires a token" in told
    assert below(tmp_path) == {"annotators/sk_model.pth"}


def test_offline(
    annotators: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRITON_DIFFUSERS_OFFLINE", "1")
    assert fetch("hed", "--to", tmp_path) == 1
    assert "cannot be downloaded: offline mode is set" in capsys.readouterr().out
    assert annotators.listings == 0


def test_more_than_is_allowed(
    annotators: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRITON_DIFFUSERS_MAX_SOURCE_GIGABYTES", "0.00001")
    assert fetch("hed", "--to", tmp_path) == 1
    assert "TRITON_DIFFUSERS_MAX_SOURCE_GIGABYTES" in capsys.readouterr().out
    assert below(tmp_path) == set()


def test_a_folder_that_cannot_be_written(annotators: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "annotators").write_text("a file")
    assert fetch("hed", "--to", tmp_path) == 1
    assert f"cannot be downloaded to {tmp_path}/annotators: File exists" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["cany", "../hed", "HED", ""])
def test_an_unknown_name(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert fetch(name, "--to", tmp_path) == 2
    assert f"unknown preprocessor {name!r}; known: canny, depth" in capsys.readouterr().err


def test_a_model_directory_that_is_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    assert fetch("hed", "--model-dir", "hf://owner/name") == 2
    assert "hf:/owner/name is not on this machine; name a folder with --to" in capsys.readouterr().err


def test_help_and_page_tell_every_option_and_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        fetch("--help")
    told = capsys.readouterr().out
    page = (ROOT / "docs" / "adapters.md").read_text(encoding="utf-8")
    for option in OPTIONS:
        assert option in told
        assert option in page
    for name in PREPROCESSORS:
        assert f"`{name}`" in page
    for weights in {weights for needs in WEIGHTS.values() for weights in needs}:
        assert weights.repository in page
        assert f"{weights.folder}/" in page


def test_listing_imports_no_heavy_package(tmp_path: Path) -> None:
    program = (
        "import sys; from triton_diffusers.cli import main as cli; "
        f"cli.main(['fetch-preprocessors', '--dry-run', '--to', {str(tmp_path)!r}]); "
        "print([name for name in ('torch', 'transformers', 'cv2', 'scipy') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.splitlines()[-1] == "[]"


def test_fetched_files_are_found_by_preprocessors(annotators: Hub, tmp_path: Path) -> None:
    assert HED.missing(tmp_path) == ["annotators/ControlNetHED.pth"]
    assert fetch("hed", "--to", tmp_path) == 0
    assert HED.missing(tmp_path) == []
    assert HED.found(tmp_path) == [tmp_path / "annotators" / "ControlNetHED.pth"]
    shutil.rmtree(tmp_path / "annotators")
    assert HED.found(tmp_path) == []
