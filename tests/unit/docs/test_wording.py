"""Rules of wording that ruff does not know: beginnings of docstrings, and phrases of code and docs."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FOLDERS = ("benchmarks", "client", "docs", "model_repository", "tests", "tools", "training", "triton_diffusers")
BEGINNINGS = re.compile(r"(?:What|Whether|Those|That|Who|The same)\b")
# "is no" means "is not a" here, unless "there is no …", "is no longer" or "is no such …"; say "again", and "continue".
PHRASES = re.compile(
    r"(?<!there )\b(?:is|are|was|were) no (?!longer\b|such\b)|\banew\b|\b(?:go|goes|going|gone|went) on\b",
    re.IGNORECASE,
)
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def texts(*suffixes: str) -> Iterator[tuple[Path, str]]:
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in suffixes and path != Path(__file__):
                yield path.relative_to(ROOT), path.read_text(encoding="utf-8")
    for path in sorted(ROOT.glob("*.md")) if ".md" in suffixes else ():
        yield path.relative_to(ROOT), path.read_text(encoding="utf-8")


def bad_beginnings(source: str) -> list[str]:
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, DOCUMENTED)]
    return [doc.splitlines()[0] for node in nodes if (doc := ast.get_docstring(node)) and BEGINNINGS.match(doc)]


def bad_phrases(text: str) -> list[str]:
    # Names of tests are sentences, too.
    return [match.group() for match in PHRASES.finditer(text.replace("_", " "))]


def test_docstrings_begin_with_a_verb_or_a_noun() -> None:
    assert [f"{path}: {found}" for path, text in texts(".py") for found in bad_beginnings(text)] == []


def test_phrases_are_the_usual_ones() -> None:
    assert [f"{path}: {found}" for path, text in texts(".py", ".md") for found in bad_phrases(text)] == []


@pytest.mark.parametrize("word", ["What a", "Whether it", "Those of", "That of", "Who asks", "The same as"])
def test_a_bad_beginning_is_found(word: str) -> None:
    assert bad_beginnings(f'def f():\n    """{word} request."""') == [f"{word} request."]
    assert bad_beginnings('def f():\n    """Return what a request is."""') == []


def test_a_bad_phrase_is_found() -> None:
    assert bad_phrases("it is no image, built anew; test_it_goes_on") == ["is no ", "anew", "goes on"]
    assert bad_phrases("there is no image, it is no longer here; again, it continues") == []
