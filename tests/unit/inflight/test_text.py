"""Hidden states of prompts, compared with diffusers' pipeline and with rules applied by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

from tests.unit.conftest import request_for
from triton_diffusers.checkpoints.load import Components
from triton_diffusers.engines.eager import EagerEngine
from triton_diffusers.errors import InvalidRequest
from triton_diffusers.families.conditioning import STATES, Inputs
from triton_diffusers.inflight.text import PromptEncoder
from triton_diffusers.prompts import Tokens
from triton_diffusers.settings import Settings

LAYERS = 4
SIZE = (64, 64)


class CountingEngine(EagerEngine):
    """Engine that counts encoded chunks."""

    chunks = 0

    def encode_prompts(self, chunks: Any, clip_skip: int, loras: Any = None) -> Inputs:
        self.chunks += len(chunks)
        return super().encode_prompts(chunks, clip_skip, loras)


@pytest.fixture
def engine(components: Components) -> CountingEngine:
    return CountingEngine(components)


@pytest.fixture
def encoder(engine: CountingEngine) -> PromptEncoder:
    return PromptEncoder(engine, Settings(max_prompt_chunks=3))


@pytest.fixture(scope="module")
def pipeline(components: Components) -> Any:
    """Return diffusers' pipeline with the same modules."""
    return StableDiffusionPipeline(
        vae=components.vae,
        text_encoder=components.text_encoder,
        tokenizer=components.tokenizer,
        unet=components.denoiser,
        scheduler=DDIMScheduler.from_config(components.family.schedule.config),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def states(encoder: PromptEncoder, prompt: str, **changes: Any) -> torch.Tensor:
    warnings: list[str] = []
    found = encoder.encode(request_for(prompt, **{"guidance_scale": 1.0, **changes}), SIZE, None, warnings)
    assert not any("cut" in warning for warning in warnings)
    return found.at(0, found.rows)[STATES]


def plain(components: Components, *words: str) -> torch.Tensor:
    """Return hidden states of one chunk without weights, from transformers."""
    ids = components.tokenizer(" ".join(words), padding="max_length", max_length=77, return_tensors="pt").input_ids
    with torch.inference_mode():
        return components.text_encoder(ids).last_hidden_state


@pytest.mark.parametrize("prompt", ["", "a red apple", "蓝色背景上的红苹果", "apple " * 75])
@pytest.mark.parametrize("clip_skip", range(1, LAYERS + 1))
@torch.inference_mode()
def test_plain_prompt_matches_diffusers(encoder: PromptEncoder, pipeline: Any, prompt: str, clip_skip: int) -> None:
    text_encoder = pipeline.text_encoder
    # diffusers expects the last normalisation where earlier versions of transformers had it.
    vars(text_encoder).setdefault("text_model", text_encoder)
    try:
        skipped = clip_skip - 1 if clip_skip > 1 else None
        positive, _ = pipeline.encode_prompt(prompt, "cpu", 1, False, clip_skip=skipped)
        _, negative = pipeline.encode_prompt("", "cpu", 1, True, negative_prompt="a green pear")
    finally:
        del vars(text_encoder)["text_model"]
    assert torch.equal(states(encoder, prompt, clip_skip=clip_skip), positive)
    found = states(encoder, prompt, clip_skip=clip_skip, guidance_scale=3.0, negative_prompt="a green pear")
    assert torch.equal(found[1:], positive)
    if clip_skip == 1:  # diffusers encodes a negative prompt by its last layer in any case
        assert torch.equal(found[:1], negative)


@torch.inference_mode()
def test_a_skipped_layer_counts_for_both_prompts(encoder: PromptEncoder, components: Components) -> None:
    """Compare with the layer's own normalised output."""
    left: list[torch.Tensor] = []
    text_encoder = components.text_encoder
    hook = text_encoder.encoder.layers[1].register_forward_hook(lambda module, args, output: left.append(output))
    try:
        plain(components, "a green pear")
        plain(components, "a red apple")
    finally:
        hook.remove()
    expected = text_encoder.final_layer_norm(torch.cat([out[0] if isinstance(out, tuple) else out for out in left]))
    found = states(encoder, "a red apple", negative_prompt="a green pear", guidance_scale=3.0, clip_skip=3)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("clip_skip", [0, -1, LAYERS + 1, 10**6])
def test_clip_skip_beyond_the_layers_is_an_error(encoder: PromptEncoder, clip_skip: int) -> None:
    with pytest.raises(
        InvalidRequest, match=rf"clip_skip: {clip_skip} .* between 1 and {LAYERS}, the layers"
    ) as caught:
        states(encoder, "a red apple", clip_skip=clip_skip)
    assert caught.value.field == "clip_skip"


@pytest.mark.parametrize("prompt", ["(a red apple:1)", "([a red apple])", "(a (red:1) apple:1)"])
def test_weights_of_one_change_no_bit(encoder: PromptEncoder, components: Components, prompt: str) -> None:
    assert torch.equal(states(encoder, prompt), plain(components, "a red apple"))


def test_weights_match_the_rule_applied_by_hand(encoder: PromptEncoder, components: Components) -> None:
    """Use words of one token each; the start token is first, so word i is token i + 1."""
    found = states(encoder, "apple (pear:1.4) [apple (pear)]")
    expected = plain(components, "apple pear apple pear").clone()
    mean = expected.mean()
    for token, weight in {2: 1.4, 3: 1 / 1.1}.items():
        expected[0, token] *= weight
    expected *= mean / expected.mean()
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, plain(components, "apple pear apple pear"), rtol=1e-3)


def test_chunks_are_encoded_by_themselves(encoder: PromptEncoder, components: Components) -> None:
    found = states(encoder, "apple " * 75 + "(pear:1.5) BREAK apple pear")
    assert found.shape[1] == 3 * 77
    first, second, third = found.split(77, dim=1)
    assert torch.equal(first, plain(components, *["apple"] * 75))
    assert torch.equal(third, plain(components, "apple", "pear"))
    expected = plain(components, "pear").clone()
    mean = expected.mean()
    expected[0, 1] *= 1.5
    torch.testing.assert_close(second, expected * mean / expected.mean())


@pytest.mark.parametrize("longer", ["prompt", "negative_prompt"])
def test_the_shorter_prompt_gets_empty_chunks(encoder: PromptEncoder, components: Components, longer: str) -> None:
    texts = {"prompt": "apple", "negative_prompt": "apple", longer: "apple BREAK pear"}
    found = states(encoder, **texts, guidance_scale=3.0)
    assert found.shape[:2] == (2, 2 * 77)
    row = 1 if longer == "prompt" else 0
    assert torch.equal(found[row, 77:], plain(components, "pear")[0])
    assert torch.equal(found[1 - row, 77:], plain(components, "")[0])
    assert torch.equal(found[:, :77], plain(components, "apple").expand(2, -1, -1))


def test_without_guidance_a_negative_prompt_does_not_lengthen(encoder: PromptEncoder) -> None:
    assert states(encoder, "apple", negative_prompt="apple BREAK pear").shape[:2] == (1, 77)


def test_truncated_text_is_a_warning(encoder: PromptEncoder) -> None:
    warnings: list[str] = []
    request = request_for("apple BREAK " * 3 + "pear", negative_prompt="apple BREAK " * 4 + "(blue:2) BREAK red")
    assert encoder.encode(request, SIZE, None, warnings).chunks(0) == 3
    assert warnings == [
        "negative_prompt: too long, only 3 chunks were used, cut: 'apple blue red'",
        "prompt: too long, only 3 chunks were used, cut: 'pear'",
    ]


def test_a_chunk_is_encoded_once(encoder: PromptEncoder, engine: CountingEngine) -> None:
    guided = {"negative_prompt": "pear", "guidance_scale": 3.0}
    first = states(encoder, "apple BREAK (pear:1.5) BREAK apple", **guided)
    assert engine.chunks == 3  # apple, pear, and the empty chunk of the negative prompt
    again = states(encoder, "apple BREAK (pear:1.5) BREAK apple", **guided)
    assert torch.equal(first, again)
    assert engine.chunks == 3
    # Cache entries hold no weights, and belong to one layer.
    assert not torch.equal(states(encoder, "apple BREAK (pear:0.5)")[0, 77:], first[1, 77 : 2 * 77])
    assert engine.chunks == 3
    states(encoder, "apple", clip_skip=2)
    assert engine.chunks == 4


def test_cache_key_includes_the_attention_mask(encoder: PromptEncoder, engine: CountingEngine) -> None:
    """Spell out the end token, which gives the ids of an empty prompt with another mask."""
    states(encoder, "")
    states(encoder, "<|endoftext|>")
    assert engine.chunks == 2


def test_oldest_chunks_are_evicted(engine: CountingEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triton_diffusers.inflight.text._MAX_CACHED_CHUNKS", 2)
    encoder = PromptEncoder(engine, Settings(max_prompt_chunks=1))
    for prompt in ("one", "two", "one", "three", "one", "two"):
        states(encoder, prompt)
    assert engine.chunks == 4  # "two" was the oldest when "three" came


def test_the_engine_gets_one_chunk_at_a_time(components: Components) -> None:
    """Keep a chunk's states independent of the batch, although rounding depends on its size."""

    class Engine(EagerEngine):
        def encode_prompts(self, chunks: Any, clip_skip: int, loras: Any = None) -> Inputs:
            assert len(chunks) == 1
            assert isinstance(chunks[0], Tokens)
            return super().encode_prompts(chunks, clip_skip, loras)

    states(
        PromptEncoder(Engine(components), Settings()), "apple BREAK pear", negative_prompt="blue", guidance_scale=3.0
    )


def test_untranslated_chinese_is_a_warning(encoder: PromptEncoder) -> None:
    fields = {"negative_prompt": "红苹果", "guidance_scale": 3.0}
    both = ["negative_prompt: Chinese ('红苹果')", "prompt: Chinese ('猫', '狗')"]
    for request, told in [
        (request_for("猫 AND [狗:a:0.5] <lora:红:1>", **fields), both),
        (request_for("猫", guidance_scale=1.0, negative_prompt="红苹果"), ["prompt: Chinese ('猫')"]),
        (request_for("猫", warnings=("the translator does not know it",), **fields), []),
    ]:
        warnings: list[str] = []
        encoder.encode(request, SIZE, None, warnings)
        assert [warning.partition(" is not translated")[0] for warning in warnings] == told


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"prompt": "(apple:10) AND pear:-10"}, []),
        (
            {"prompt": "an (apple:12), (pear:13)"},
            ["prompt: the attention weight of 'apple' was limited: weights lie between -10 and 10"],
        ),
        (
            {"prompt": "an apple", "negative_prompt": "[a:(b:-99):2]"},
            ["negative_prompt: the attention weight of 'b' was limited: weights lie between -10 and 10"],
        ),
        (
            {"prompt": "an apple :11 AND a pear :-12.5"},
            [
                "prompt: the AND weight of 'an apple' was limited to 10: weights lie between -10 and 10",
                "prompt: the AND weight of 'a pear' was limited to -10: weights lie between -10 and 10",
            ],
        ),
    ],
)
def test_limited_weights_are_told(encoder: PromptEncoder, fields: dict[str, str], expected: list[str]) -> None:
    warnings: list[str] = []
    encoder.encode(request_for(**fields), SIZE, None, warnings)
    assert warnings == expected
