"""Prompt tags."""

from __future__ import annotations

import pytest

from triton_diffusers.prompts.tags import split_tags


@pytest.mark.parametrize(
    ("prompt", "text", "tags"),
    [
        ("a <lora:flat:0.8> b", "a  b", [("lora", ("flat", "0.8"))]),
        ("<LoRA:a b.safetensors>", "", [("lora", ("a b.safetensors",))]),
        ("<lora:x:1:0.5><hypernet:y>", "", [("lora", ("x", "1", "0.5")), ("hypernet", ("y",))]),
        ("红<lora:红/é😀:1>", "红", [("lora", ("红/é😀", "1"))]),
        ("a <3 b> <:> <x> < lora:a> <lora:> <lora:a", "a <3 b> <:> <x> < lora:a> <lora:> <lora:a", []),
        (r"\<lora:a:1> \\<lora:b>", r"\<lora:a:1> " + "\\\\", [("lora", ("b",))]),
        ("<<lora:a>>", "<>", [("lora", ("a",))]),
    ],
)
def test_split_tags_removes_tags(prompt: str, text: str, tags: list[tuple[str, tuple[str, ...]]]) -> None:
    found, taken = split_tags(prompt)
    assert found == text
    assert [(tag.kind, tag.arguments) for tag in taken] == tags
    assert all(tag.text in prompt for tag in taken)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("piece", ["<", "<a:", "<a:b", "a", "\\", ":", "<lora:a>"])
def test_a_huge_prompt_is_split_in_linear_time(piece: str) -> None:
    split_tags("<lora:" + piece * 100_000)
