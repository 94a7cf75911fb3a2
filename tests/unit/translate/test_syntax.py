"""The split of prompts into translated and unchanged pieces."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from triton_diffusers.prompts.syntax import parse
from triton_diffusers.prompts.tags import split_tags
from triton_diffusers.translate.syntax import MAX_RUN, Kind, join, part
from triton_diffusers.translate.typed import as_typed

WORDS = {
    "红苹果": "red apple",
    "猫": "cat",
    "高质量": "high quality",
    "蓝色背景上的": "on a blue background",
    "背景": "background",
}


def translated(prompt: str) -> str:
    """Return the prompt with ``WORDS`` translated, others in braces."""
    prompt = as_typed(prompt)
    return join(part(prompt), [WORDS.get(text, f"{{{text}}}") for text in chinese(prompt)])


def chinese(prompt: str) -> list[str]:
    return [piece.text for piece in part(prompt) if piece.kind is Kind.CHINESE]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("红苹果", "red apple"),
        ("红苹果，猫、高质量", "red apple, cat, high quality"),
        ("红苹果,cat , 猫", "red apple,cat , cat"),
        ("红苹果。", "red apple."),
        ("红苹果！！", "red apple!!"),
        ("红苹果\n猫", "red apple\ncat"),
        ("红苹果 猫", "red apple cat"),
        ("红苹果\u3000猫", "red apple cat"),
        ("红苹果/猫-dog", "red apple/cat-dog"),
        ("a 红苹果 on my iPhone背景", "a red apple on my iPhone background"),
        ("SDXL红苹果", "SDXL red apple"),
        ("“红苹果”和", '"red apple" {和}'),
    ],
)
def test_text_is_translated_in_place(prompt: str, expected: str) -> None:
    assert translated(prompt) == expected


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("(红苹果:1.3)", "(red apple:1.3)"),
        ("((红苹果)), [猫]", "((red apple)), [cat]"),
        ("蓝色背景上的(红苹果: .5 )和", "on a blue background (red apple: .5 ) {和}"),
        ("红苹果\\(猫\\)", "red apple \\(cat\\)"),
        ("红苹果\\\\", "red apple\\\\"),
        ("红苹果 BREAK 猫", "red apple BREAK cat"),
        ("红苹果<lora:猫/红苹果:0.8>猫", "red apple <lora:猫/红苹果:0.8> cat"),
        ("<hypernet:a:1>, 猫", "<hypernet:a:1>, cat"),
        (r"\<红苹果\|猫\:", r"\<red apple\|cat\:"),
        ("红苹果：猫", "red apple: cat"),
        ("[红苹果:猫:0.5]", "[red apple:cat:0.5]"),
        ("[红苹果|猫|]", "[red apple|cat|]"),
        ("[红苹果::3]背景", "[red apple::3] background"),
        ("红苹果 AND 猫 :1.2", "red apple AND cat :1.2"),
        ("红苹果AND猫", "red apple AND cat"),
        ("红苹果BREAK猫", "red apple BREAK cat"),
    ],
)
def test_syntax_survives(prompt: str, expected: str) -> None:
    assert translated(prompt) == expected
    assert [len(section) for section in parse(translated(prompt))] == [
        len(section) for section in parse(prompt.replace("BREAK", " BREAK "))
    ]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("（红苹果：1.3）", "(red apple:1.3)"),
        ("（红苹果:１．３）", "(red apple:1.3)"),
        ("(红苹果：1.3)", "(red apple:1.3)"),
        ("(红苹果： 1.3 )", "(red apple: 1.3 )"),
        ("（红苹果：1。3）", "(red apple:1.3)"),
        ("红苹果《lora：flat：0。8》", "red apple <lora:flat:0.8>"),
        ("（（红苹果）），【猫】", "((red apple)), [cat]"),
        ("【红苹果：猫：０．５】", "[red apple: cat:0.5]"),
        ("［红苹果｜猫］", "[red apple|cat]"),
        ("红苹果，ｃａｔ，４Ｋ", "red apple, cat, 4K"),
        ("１个红苹果", "{1个红苹果}"),
        ("红苹果ＡＮＤ猫", "red apple AND cat"),
        ("＼（红苹果＼）", r"\(red apple\)"),
        ("红苹果《lora：flat：０．８》", "red apple <lora:flat:0.8>"),
        ("红苹果＜LoRA:红（一）：0.8＞", "red apple <LoRA:红（一）:0.8>"),
        ("红苹果<lora:红（一）:0.8>", "red apple <lora:红（一）:0.8>"),
        ("《红苹果》，猫", '"red apple", cat'),
        ("(红苹果：" + " " * 9 + "1)", "(red apple:" + " " * 9 + "1)"),
    ],
)
def test_full_width_syntax_is_syntax(prompt: str, expected: str) -> None:
    assert translated(prompt) == expected


@pytest.mark.parametrize(
    "prompt",
    [
        "", "a cat", " a  cat ,, (dog:1.3) [x] \\( \t\n", "cat，dog。", "（a）", "りんごの赤い絵", "ñandú, 한국어",
        "\u3000", "<lora:猫:1>", "<红:猫>",
    ],
)  # fmt: skip
def test_prompts_without_chinese_are_unchanged(prompt: str) -> None:
    assert chinese(prompt) == []
    assert translated(prompt) == prompt


def test_all_marks_of_a_prompt_with_chinese_are_replaced() -> None:
    assert translated("cat，dog，“bird”，红苹果") == 'cat, dog, "bird", red apple'


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("T恤", ["T恤"]),
        ("3D渲染，4K", ["3D渲染"]),
        ("1980年代的猫", ["1980年代的猫"]),
        ("3个苹果", ["3个苹果"]),
        ("a苹果b", ["苹果"]),
        ("猫iPhone", ["猫"]),
        ("猫ABCD", ["猫"]),
        ("苹" * (MAX_RUN + 1), ["苹" * MAX_RUN, "苹"]),
    ],
)
def test_runs_of_chinese_are_found(prompt: str, expected: list[str]) -> None:
    assert chinese(prompt) == expected


ALPHABET = st.sampled_from([*"红苹果猫aA1 ,:.()[]\\<>，。：（）“\u3000あ\n", "BREAK", "<lora:a:1>", ":1.3)"])


@given(st.lists(ALPHABET, max_size=30).map("".join))
def test_pieces_are_the_prompt(prompt: str) -> None:
    assert "".join(piece.text for piece in part(prompt)) == prompt
    assert all(len(piece.text) <= MAX_RUN + 2 for piece in part(prompt) if piece.kind is Kind.CHINESE)


def brackets(prompt: str) -> list[str]:
    """Return a prompt's brackets, weights and tags; escaped ones are text."""
    kinds = (Kind.OPEN, Kind.CLOSE, Kind.TAG)
    return [piece.text for piece in part(f"{prompt}，红") if piece.kind in kinds and piece.text[0] != "\\"]


@given(st.lists(ALPHABET, max_size=30).map("".join))
@example("<红：红>")
@example("(红：1)")
def test_weights_and_tags_stay_the_same(prompt: str) -> None:
    """Brackets, their weights and tags are those of the prompt, in their order, whatever is between them."""
    typed = as_typed(prompt)
    english = join(part(typed), ["x"] * len(chinese(typed)))
    assert brackets(english) == brackets(typed)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("<猫：红苹果>", r"\<cat: red apple>"),
        ("<a：1>猫", r"\<a: 1>cat"),
        (r"猫\\<猫：猫>", r"cat\\\<cat: cat>"),
        ("<红苹果：猫>", "<red apple: cat>"),
        ("<红苹果，猫>", "<red apple, cat>"),
        (f"猫<lora:{'红' * 300}:1>", f"cat <lora:{'红' * 300}:1>"),
    ],
)
def test_marks_make_no_new_tags(prompt: str, expected: str) -> None:
    assert translated(prompt) == expected
    assert split_tags(translated(prompt))[1] == split_tags(prompt)[1]


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "unit",
    [
        "苹",
        "1",
        "A1",
        "(",
        ":1",
        "：1 ",
        "<a:",
        "あ",
        " ",
        "苹A",
        "\\",
        "苹，",
        "《lora",
        "<lora：",
        "：",
        "<",
        "<a：",
        "： ",
    ],
)
def test_ten_thousand_characters_take_no_time(unit: str) -> None:
    part(as_typed(unit * (10_000 // len(unit)) + "苹"))
