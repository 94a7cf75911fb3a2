"""LoRA tags in prompts: parsed like the web UI, with the same result as ``lora_path``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.conftest import ROOT, finish, request_for
from tests.unit.loops import images_of
from triton_diffusers.api.request import LoraChoice
from triton_diffusers.checkpoints.load import Components
from triton_diffusers.engines.eager import EagerEngine
from triton_diffusers.errors import InvalidRequest, NotFound
from triton_diffusers.inflight.loop import EngineLoop
from triton_diffusers.inflight.lora_tags import LoraTags
from triton_diffusers.settings import Settings

EMOJI = ROOT / "models" / "emoji"
FLAT, CONTRAST = "lora/flat.safetensors", "lora/high-contrast.safetensors"


def choices(prompt: str, *given: LoraChoice, **settings: object) -> tuple[list[LoraChoice], list[str]]:
    warnings: list[str] = []
    tags = LoraTags(Settings(model_dir=EMOJI, **settings))  # type: ignore[arg-type]
    return list(tags.choices(request_for(prompt, loras=given), warnings)), warnings


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("an apple", []),
        ("<lora:flat:0.8>", [LoraChoice(FLAT, 0.8)]),
        ("<lora:flat>", [LoraChoice(FLAT, 1.0)]),
        ("<LYCO:high-contrast.safetensors: -.5 >", [LoraChoice(CONTRAST, -0.5)]),
        ("<lora:flat:1><lora:flat:2>", [LoraChoice(FLAT, 1), LoraChoice(FLAT, 2)]),
        # The text encoder's weight first, as in the web UI.
        ("<lora:flat:0.2:0.7>", [LoraChoice(FLAT, 0.2, "text_encoder"), LoraChoice(FLAT, 0.7, "unet")]),
        ("<lora:flat:0.5:0.5>", [LoraChoice(FLAT, 0.5)]),
        ("<lora:flat:te=0:unet=1>", [LoraChoice(FLAT, 0, "text_encoder"), LoraChoice(FLAT, 1, "unet")]),
        ("<lora:flat:0.5:unet=1>", [LoraChoice(FLAT, 0.5, "text_encoder"), LoraChoice(FLAT, 1, "unet")]),
        ("<lora:flat:te=0.5>", [LoraChoice(FLAT, 0.5)]),
    ],
)
def test_tags_are_choices(prompt: str, expected: list[LoraChoice]) -> None:
    assert choices(prompt) == (expected, [])


def test_tags_come_after_the_field() -> None:
    given = LoraChoice(CONTRAST, 0.3)
    assert choices("<lora:flat:1>", given)[0] == [given, LoraChoice(FLAT, 1.0)]


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("<lora:flat:high>", "prompt: '<lora:flat:high>' .*expected <lora:name>, "),
        ("<lora:flat:nan>", "expected <lora:name>"),
        ("<lora:flat:>", "expected <lora:name>"),
        ("<lora:flat:1:1:8>", "expected <lora:name>"),
        ("<lora:flat:1:dyn=8>", "expected <lora:name>"),
        ("<lora:flat:11>", r"must be between -10\.0 and 10\.0"),
        ("<lora:flat:" + "9" * 400 + ">", "must be between"),
        ("<lora:flat>" * 9, "prompt: '9 LoRAs' .*at most 8, including those of lora_path"),
    ],
)
def test_malformed_tag_is_an_error(prompt: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        choices(prompt)


def test_unknown_lora_is_an_error_with_suggestions() -> None:
    with pytest.raises(NotFound, match=r"LoRA 'flut' not found .* did you mean flat"):
        choices("<lora:flut:1>")


def test_unsupported_tag_is_a_warning() -> None:
    found, warnings = choices("<hypernet:x:1> <hypernet:x:1> <foo:bar>")
    assert found == []
    assert warnings == [
        "prompt: '<hypernet:x:1>' is not supported and was left out",
        "prompt: '<foo:bar>' is not supported and was left out",
    ]
    assert len(choices("".join(f"<foo:{number}>" for number in range(100)))[1]) == 4


@pytest.fixture(scope="module")
def loop(components: Components) -> Iterator[EngineLoop]:
    settings = Settings(model_dir=EMOJI, store="", close_safety=True)
    loop = EngineLoop(lambda: EagerEngine(components), settings, name="sd_base")
    loop.start()
    yield loop
    loop.stop()


def test_tag_equals_lora_path(loop: EngineLoop) -> None:
    prompts = {
        "a red apple": (LoraChoice(FLAT, 0.8),),
        "a red apple<lora:flat:0.8>": (),
        " <lyco:flat:0.4>a red apple": (LoraChoice(FLAT, 0.4),),
        "a red apple <lora:flat:0.8:0.8>": (),
        "a red apple <lora:flat:0.8:0.2>": (),
        "a red apple <hypernet:flat:1>": (),
    }
    jobs = []
    for prompt, loras in prompts.items():
        jobs.append(loop.submit(request_for(prompt, loras=loras)))
        finish(loop, jobs[-1])  # one at a time, so that equal requests are equal to the bit
    field, tag, both, split, apart, hypernet = map(images_of, jobs)
    assert field == tag == both == split
    assert len({field, apart, hypernet}) == 3
    assert jobs[1].request.prompt == "a red apple<lora:flat:0.8>", "the reply has the prompt as it came"


def test_a_weight_for_each_network_changes_that_network_alone(components: Components, loop: EngineLoop) -> None:
    job = loop.submit(request_for("a red apple <lora:flat:0:1>"))
    finish(loop, job)
    (loras,) = {sample.loras for sample in job.samples}
    assert loras is not None
    assert {path.split(".")[0] for path in loras.layers} == {"unet"}
