"""Replace full-width brackets, colons, digits and letters, as a Chinese keyboard types them, in prompts."""

from __future__ import annotations

import re

from triton_diffusers.prompts.scripts import HAN

_CHINESE = re.compile(f"[{HAN}]")
_TAGS = re.compile(
    r"[<＜《]\s{0,4}(?P<kind>lora|lyco|hypernet)\s{0,4}[:：](?P<arguments>[^<>＜＞《》]{1,1024}+)[>＞》]"
    r"|(?P<other><[^<>:\s]{1,64}+:[^<>]{1,1024}+>)",
    re.IGNORECASE,
)
_WEIGHT = re.compile(r"：(?=\s*+[+-]?[0-9.]++\s*+[)\]])")
_POINT = re.compile(r"(?<=[0-9])。(?=[0-9])")  # the key of the decimal point, while Chinese is typed

# Punctuation between words is kept; ``syntax`` adds spaces after it.
_KEPT = "，！；：？～"
_WIDE = {chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F) if chr(code) not in _KEPT}
# Typed by bracket keys in Chinese input methods.
_NARROW = str.maketrans({**_WIDE, "【": "[", "】": "]", "〔": "(", "〕": ")"})


def as_typed(prompt: str) -> str:
    """Return a prompt that contains Chinese with its full-width syntax replaced by the syntax it stands for.

    ``（红苹果：1.3）`` becomes ``(红苹果:1.3)``, and ``《lora：flat：0.8》`` a tag. Names in tags are kept.
    A prompt without Chinese is returned unchanged.
    """
    parts, end = [], 0
    chinese = False
    for match in _TAGS.finditer(prompt):
        between = prompt[end : match.start()]
        chinese = chinese or bool(_CHINESE.search(between))
        parts += [_narrow(between), _tag(match)]
        end = match.end()
    rest = prompt[end:]
    if not (chinese or _CHINESE.search(rest)):
        return prompt
    return "".join([*parts, _narrow(rest)])


def _narrow(text: str) -> str:
    return _WEIGHT.sub(":", _POINT.sub(".", text.translate(_NARROW)))


def _tag(match: re.Match[str]) -> str:
    if match["kind"] is None:
        return match[0]
    name, *arguments = match["arguments"].replace("：", ":").split(":")
    return f"<{':'.join([match['kind'], name, *map(_narrow, arguments)])}>"
