"""Chinese prompts over every transport: by themselves, and on their way to an image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from tritonclient.utils import InferenceServerException

from tests.integration.calls import Calls, small
from tests.integration.conftest import RunningTriton

CHINESE = "蓝色背景上的红苹果"
ENGLISH = "a red apple on a blue background"


@pytest.fixture(scope="module")
def calls(triton: RunningTriton) -> Iterator[Calls]:
    opened = Calls(triton)
    yield opened
    opened.close()


def translated(calls: Calls, **fields: Any) -> Mapping[str, Any]:
    status, reply = calls.generate("translator", fields)
    assert status == 200, reply
    return reply


def test_only_chinese_text_is_translated(calls: Calls) -> None:
    reply = translated(calls, prompt=f"({CHINESE}:1.2)， a cat <lora:红:0.5>", negative_prompt="a dog，(x:1.1)")
    assert reply["prompt"] == f"({ENGLISH}:1.2), a cat <lora:红:0.5>"
    assert reply["negative_prompt"] == "a dog，(x:1.1)"


def test_a_request_can_turn_translation_off(calls: Calls) -> None:
    assert translated(calls, prompt=CHINESE, use_translate=False)["prompt"] == CHINESE
    assert translated(calls, prompt=CHINESE, use_translate=True)["prompt"] == ENGLISH


def test_too_long_a_prompt_is_told(calls: Calls) -> None:
    status, reply = calls.generate("translator", {"prompt": "a", "negative_prompt": "苹，" * 2001})
    assert status == 400
    assert "negative_prompt: '2001 characters to translate' is invalid: at most 2000" in reply["error"]


@pytest.mark.parametrize("transport", ["grpc", "http"])
def test_untranslated_words_are_warned_of(calls: Calls, transport: str) -> None:
    ask = getattr(calls, transport)
    reply = ask("ensemble", **small(prompt="紅蘋果，量子计算机", steps=1))
    assert reply["prompt"] == "red apple, 量子计算机"
    assert reply["warnings"] == ["prompt: the translator does not know '量子计算机', which stays Chinese"]
    assert ask("ensemble", **small(prompt="紅蘋果", steps=1))["warnings"] == []
    for model, fields in (("sd_base", {}), ("ensemble", {"use_translate": False})):
        (warning,) = ask(model, **small(prompt="红苹果", steps=1, **fields))["warnings"]
        assert warning.startswith("prompt: Chinese ('红苹果') is not translated here")


def test_the_translator_tells_what_it_does_not_know(calls: Calls) -> None:
    reply = translated(calls, prompt="（红苹果：１．３）AND 猫<lora:flat:0.8>", negative_prompt="囧")
    assert reply["prompt"] == "(red apple:1.3)AND cat <lora:flat:0.8>"
    assert reply["warnings"] == "negative_prompt: the translator does not know '囧', which stays Chinese"


def test_syntax_and_tags_go_through_the_ensemble(calls: Calls) -> None:
    fields = {"steps": 4, "seed": "7"}
    reply = calls.grpc("ensemble", **small(prompt="【红苹果：猫：０．５】《lora：flat：0.8》", **fields))
    same = calls.grpc("sd_base", **small(prompt="[red apple:cat:2]<lora:flat:0.8>", **fields))
    assert reply["prompt"] == "[red apple: cat:0.5]<lora:flat:0.8>"
    assert reply["warnings"] == same["warnings"] == []
    assert reply["images"] == same["images"]


@pytest.mark.parametrize("transport", ["grpc", "http"])
def test_an_ensemble_draws_what_the_translation_says(calls: Calls, transport: str) -> None:
    fields = {"steps": 2, "seed": "7", "negative_prompt": "香蕉"}
    reply = getattr(calls, transport)("ensemble", **small(prompt=CHINESE, **fields))
    same = calls.grpc("sd_base", **small(**{**fields, "prompt": ENGLISH, "negative_prompt": "banana"}))
    assert reply["prompt"] == ENGLISH
    assert reply["images"] == same["images"]


def test_plain_json(calls: Calls) -> None:
    status, reply = calls.generate(
        "ensemble", {"task_id": "json", "prompt": CHINESE, "steps": 1, "width": 64, "height": 64}
    )
    assert (status, reply["reply_prompt"]) == (200, ENGLISH)
    status, reply = calls.generate(
        "ensemble",
        {"task_id": "json", "prompt": CHINESE, "steps": 1, "width": 64, "height": 64, "use_translate": False},
    )
    assert (status, reply["reply_prompt"]) == (200, CHINESE)


def test_a_task_is_followed_and_cancelled_while_an_ensemble_runs(calls: Calls) -> None:
    """`jobs` knows it by its id once it is translated."""
    fields = small(prompt=CHINESE, steps=150, image_num=4)
    task_id = fields["task_id"]
    sent = calls.send("ensemble", **fields)
    running = calls.wait_for_job(task_id, lambda job: job["state"] == "running" and job["step"] > 0)
    assert (running["model"], running["steps"]) == ("sd_base", 600)
    calls.wait_for_job(task_id, lambda job: job["step"] > running["step"])
    assert len(calls.jobs("cancel", task_id=task_id)) == 1
    with pytest.raises(InferenceServerException, match="the job was cancelled") as caught:
        sent.result()
    assert caught.value.status() == "StatusCode.CANCELLED"
    (told,) = calls.jobs("progress", task_id=task_id)
    assert told["state"] == "cancelled"
    assert told["step"] < 600
