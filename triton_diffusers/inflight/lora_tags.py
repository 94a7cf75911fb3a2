"""LoRA tags of prompts: ``<lora:name:0.8>``."""

from __future__ import annotations

import re

from triton_diffusers.adapters.lora import TEXT_ENCODER, UNET
from triton_diffusers.adapters.lora.catalogue import LoraCatalogue
from triton_diffusers.api.request import GenerationRequest, LoraChoice
from triton_diffusers.errors import InvalidRequest, shown
from triton_diffusers.prompts import Tag, split_tags
from triton_diffusers.settings import Settings

_FIELD = "prompt"
_KINDS = ("lora", "lyco")
_DEFAULT_WEIGHT = "1"
_NUMBER = re.compile(r"\s*+([+-]?+(?:[0-9]++(?:\.[0-9]*+)?+|\.[0-9]++))\s*+")
_FORM = "expected <lora:name>, <lora:name:weight> or <lora:name:text encoder's weight:UNet's weight>"
_MAX_TOLD = 4


class LoraTags:
    """Resolver of prompt tags against the LoRAs of a model directory."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._catalogue = LoraCatalogue(settings.model_folder.resolve())

    def choices(self, request: GenerationRequest, warnings: list[str]) -> tuple[LoraChoice, ...]:
        """Return the LoRAs of a request, from its field and from its prompt's tags.

        Unsupported tags are added to ``warnings``.

        Raises:
            InvalidRequest: a tag is malformed, or the LoRAs are too many.
            NotFound: a LoRA does not exist.
        """
        _, tags = split_tags(request.prompt)
        named = [tag for tag in tags if tag.kind in _KINDS]
        others = dict.fromkeys(tag.text for tag in tags if tag.kind not in _KINDS)
        warnings.extend(
            f"{_FIELD}: {shown(text)} is not supported and was left out" for text in list(others)[:_MAX_TOLD]
        )
        number, limit = len(request.loras) + len(named), self._settings.max_loras
        if named and number > limit:
            raise InvalidRequest(_FIELD, f"{number} LoRAs", f"at most {limit}, including those of lora_path")
        return (*request.loras, *(choice for tag in named for choice in self._choices(tag)))

    def _choices(self, tag: Tag) -> list[LoraChoice]:
        """Return one choice, or one per network if the weights differ."""
        name, *arguments = tag.arguments
        positional = [argument for argument in arguments if "=" not in argument]
        weights = {"te": _DEFAULT_WEIGHT, **dict(zip(("te", "unet"), positional, strict=False))}
        weights |= {key.strip().lower(): value for key, equals, value in map(_pair, arguments) if equals}
        weights.setdefault("unet", weights["te"])
        if len(positional) > 2 or weights.keys() > {"te", "unet"}:
            raise InvalidRequest(_FIELD, tag.text, _FORM)
        text, unet = (self._weight(tag, weights[network]) for network in ("te", "unet"))
        path = self._catalogue.find(_FIELD, name)
        if text == unet:
            return [LoraChoice(path, unet)]
        return [LoraChoice(path, text, only=TEXT_ENCODER), LoraChoice(path, unet, only=UNET)]

    def _weight(self, tag: Tag, text: str) -> float:
        number, limit = _NUMBER.fullmatch(text), self._settings.max_lora_weight
        if number is None:
            raise InvalidRequest(_FIELD, tag.text, _FORM)
        weight = float(number[1])
        if not -limit <= weight <= limit:
            raise InvalidRequest(_FIELD, tag.text, f"a LoRA's weight must be between {-limit} and {limit}")
        return weight


def _pair(argument: str) -> tuple[str, str, str]:
    return argument.partition("=")
