"""The documentation agrees with itself and with the code: links, layers, error texts, settings."""

from __future__ import annotations

import argparse
import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from triton_diffusers.cli.main import make_parser
from triton_diffusers.settings import PREFIX, Settings

ROOT = Path(__file__).parents[3]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "client/*.md", "models/*/*.md")
    for path in ROOT.glob(pattern)
    if not path.is_symlink()
)

_FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
_CODE = re.compile(r"`([^`]+)`")


def links(page: Path) -> list[str]:
    """Return the targets of the links that lead to files of this repository."""
    text = re.sub(r"`[^`\n]*`(?!\])", "", _FENCE.sub("", page.read_text(encoding="utf-8")))
    return [target for target in _LINK.findall(text) if not re.match(r"[a-z]+:", target)]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    found: set[str] = set()
    for heading in _HEADING.findall(_FENCE.sub("", page.read_text(encoding="utf-8"))):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        found.add(re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_and_anchors_resolve(page: Path) -> None:
    broken = []
    for link in links(page):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_every_page_is_reachable_from_the_readme() -> None:
    reached, ahead = set(), [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        if page in reached:
            continue
        reached.add(page)
        targets = ((page.parent / link.partition("#")[0]).resolve() for link in links(page) if link[0] != "#")
        ahead += [target for target in targets if target.suffix == ".md" and target.exists()]
    assert {page for page in PAGES if page.is_relative_to(ROOT / "docs")} <= reached


def test_the_table_of_packages_lists_the_layers_in_order() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = config["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page.partition("| packages | contents |\n|---|---|\n")[2].partition("\n\n")[0]
    rows = [set(_CODE.findall(row.split("|")[1])) for row in table.splitlines()]
    assert rows == [{package.strip() for package in re.split(r"[|:]", layer)} for layer in layers]


def texts() -> Iterator[str]:
    """Yield the string literals of the code; what an f-string fills in is a ``…``."""
    sources = [ROOT / "tools" / "reference.py"]
    for package in (ROOT / "triton_diffusers", ROOT / "client" / "triton_diffusers_client"):
        sources += package.rglob("*.py")
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            elif isinstance(node, ast.JoinedStr):
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)


def test_troubleshooting_quotes_texts_that_the_code_has() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = [_CODE.search(row.split("|")[1]) for row in page.splitlines() if row.startswith("| ")]
    known = "\n".join(texts())
    assert "… is invalid: …" in known
    missing = [
        (error[1], part)
        for error in quoted
        if error and " " in error[1]
        for part in re.split(r"^[a-z_]+: …|…| is invalid: ", error[1])
        if len(part.strip(" :;")) >= 8 and part.strip(" :;") not in known
    ]
    assert missing == []


def test_every_command_is_in_the_table_of_packages() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    (row,) = (line for line in page.splitlines() if line.startswith("| `cli` |"))
    (commands,) = (each for each in make_parser()._actions if isinstance(each, argparse._SubParsersAction))
    assert re.findall(r"`([a-z-]+)`", row) == ["cli", *commands.choices]


def test_every_setting_is_in_the_configuration_page() -> None:
    page = _FENCE.sub("", (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8"))
    named = set(re.findall(r"[A-Z][A-Z0-9_]+", " ".join(_CODE.findall(page))))
    internal = {"HEADERS_FORWARDED"}
    assert {name.upper() for name in Settings.model_fields} - named == internal
    assert f"`{PREFIX}<NAME>`" in page
