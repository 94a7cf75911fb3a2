"""A checkpoint in one file to a folder in the diffusers layout.

diffusers renames the tensors; the configs, which it would fetch from a hub, are made here: from the tensors' shapes,
from what all models of the family share (``families/*.json``), and from the sidecar, each before the one after it.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from triton_diffusers.checkpoints import prediction, shapes
from triton_diffusers.checkpoints.errors import LoadError, one_line
from triton_diffusers.checkpoints.kinds import CLIP, OPEN_CLIP, checked, uses_open_clip
from triton_diffusers.checkpoints.layout import INDEX
from triton_diffusers.checkpoints.sidecar import Sidecar
from triton_diffusers.checkpoints.vocabulary import write_tokenizer
from triton_diffusers.checkpoints.weights import Weights, read_weights

log = logging.getLogger(__name__)

_KEPT_PRECISIONS = (torch.float32, torch.float16, torch.bfloat16)
_CLIP_WORDS = 49_408
_INPAINTING_CHANNELS = 9


def convert(source: Path, folder: Path) -> None:
    """Write ``source`` into the existing, empty ``folder``, in the precision of the file. Raises ``LoadError``."""
    weights = read_weights(source)
    sidecar = Sidecar(source)
    tensors = checked(source, weights.tensors)
    try:
        _Conversion(source, folder, sidecar, Weights(tensors, weights.global_step)).run()
    except KeyError as error:
        raise LoadError(f"{source} is incomplete: it has no tensor {error.args[0]}") from error


class _Conversion:
    def __init__(self, source: Path, folder: Path, sidecar: Sidecar, weights: Weights) -> None:
        self._source, self._folder, self._sidecar = source, folder, sidecar
        self._tensors, self._global_step = weights.tensors, weights.global_step
        self._is_2 = uses_open_clip(self._tensors)

    def run(self) -> None:
        """Write every component, the index last."""
        from diffusers import AutoencoderKL, UNet2DConditionModel
        from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint

        shape = {**shapes.unet_config(self._tensors), **self._sidecar.config("unet")}
        unet_tensors = convert_ldm_unet_checkpoint(dict(self._tensors), config=shape)
        family = self._family(UNet2DConditionModel, shape, unet_tensors)
        unet = self._build(UNet2DConditionModel, shapes.unet_config(self._tensors), family, "unet")
        self._write(unet, unet_tensors, "unet")
        vae = self._build(AutoencoderKL, shapes.vae_config(self._tensors), family, "vae")
        self._write(vae, convert_ldm_vae_checkpoint(dict(self._tensors), config=vae.config), "vae")
        self._write_text_encoder(family)
        scheduler = {**family["scheduler"], **self._sidecar.config("scheduler")}
        scheduler["prediction_type"] = self._sidecar.prediction_type or scheduler["prediction_type"]
        _write_json(self._folder / "scheduler" / "scheduler_config.json", scheduler)
        for folder in self._sidecar.whole_folders:
            shutil.copytree(folder, self._folder / folder.name)
        if not (self._folder / "tokenizer").is_dir():
            self._write_tokenizer(family)
        self._write_index(unet, scheduler)

    def _family(self, model_class: Any, shape: dict[str, Any], tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        """What the family's file says; 2.x has two that only their predictions tell apart."""
        if not self._is_2:
            return _read_family("sd1")
        kind = self._sidecar.prediction_type or prediction.by_global_step(self._global_step)
        if kind is None:
            unet = model_class.from_config({**_read_family("sd2-base")["unet"], **shape})
            unet.load_state_dict({name: value.float() for name, value in tensors.items()}, strict=False)
            kind = prediction.by_trial(unet.eval())
            log.info("%s: neither the file nor a sidecar says what it predicts; a trial says %s", self._source, kind)
        return _read_family("sd2-v" if kind == "v_prediction" else "sd2-base")

    def _build(self, model_class: Any, shape: dict[str, Any], family: Mapping[str, Any], component: str) -> Any:
        """The model without memory for its parameters."""
        from accelerate import init_empty_weights

        config = {**shape, **family[component], **self._sidecar.config(component)}
        try:
            with init_empty_weights():
                return model_class.from_config(config)
        except Exception as error:  # a sidecar may say anything
            raise LoadError(f"{self._source}: its {component} cannot be made: {one_line(error)}") from error

    def _write_text_encoder(self, family: Mapping[str, Any]) -> None:
        from accelerate import init_empty_weights
        from diffusers.loaders.single_file_utils import convert_ldm_clip_checkpoint, convert_open_clip_checkpoint
        from transformers import CLIPTextConfig, CLIPTextModel

        shape = shapes.open_clip_config(self._tensors) if self._is_2 else shapes.clip_config(self._tensors)
        config = CLIPTextConfig(**{**shape, **family["text_encoder"], **self._sidecar.config("text_encoder")})
        with init_empty_weights():
            model = CLIPTextModel(config)
        if self._is_2:
            last = f"{OPEN_CLIP}transformer.resblocks.{shapes.open_clip_layers(self._tensors) - 1}."
            used = {
                name: value
                for name, value in self._tensors.items()
                if not name.startswith(last) and name != f"{OPEN_CLIP}text_projection"
            }
            tensors = convert_open_clip_checkpoint(SimpleNamespace(config=config), used)
        else:
            tensors = convert_ldm_clip_checkpoint({k: v for k, v in self._tensors.items() if k.startswith(CLIP)})
        # transformers has taken this prefix away from the names, and put it back, more than once.
        if not any(name.startswith("text_model.") for name in model.state_dict()):
            tensors = {name.removeprefix("text_model."): value for name, value in tensors.items()}
        self._write(model, tensors, "text_encoder")

    def _write(self, model: Any, tensors: Mapping[str, torch.Tensor], component: str) -> None:
        """Write config and weights; every parameter must be there and fit."""
        from safetensors.torch import save_file

        kept = {}
        for name, expected in model.state_dict().items():
            tensor = tensors.get(name)
            if tensor is None:
                raise LoadError(f"{self._source} is incomplete: the {component} has no tensor {name}")
            if tensor.shape != expected.shape:
                raise LoadError(
                    f"{self._source}: {component} {name} has the shape {tuple(tensor.shape)}, "
                    f"not {tuple(expected.shape)}"
                )
            kept[name] = _plain(tensor)
        folder = self._folder / component
        is_text = component == "text_encoder"
        if is_text:
            _write_json(folder / "config.json", {**model.config.to_diff_dict(), "architectures": ["CLIPTextModel"]})
        else:
            model.save_config(folder)
        save_file(
            kept,
            folder / ("model.safetensors" if is_text else "diffusion_pytorch_model.safetensors"),
            metadata={"format": "pt"},
        )

    def _write_tokenizer(self, family: Mapping[str, Any]) -> None:
        config = json.loads((self._folder / "text_encoder" / "config.json").read_text(encoding="utf-8"))
        words = config.get("vocab_size", _CLIP_WORDS)
        if words != _CLIP_WORDS:
            raise LoadError(
                f"{self._source}: its text encoder has {words} words and CLIP's tokenizer {_CLIP_WORDS}; "
                f"lay the model's own into {self._sidecar.folder / 'tokenizer'}"
            )
        write_tokenizer(
            self._folder / "tokenizer",
            pad_token=family["pad_token"],
            length=config.get("max_position_embeddings", 77),
        )

    def _write_index(self, unet: Any, scheduler: Mapping[str, Any]) -> None:
        checker = (self._folder / "safety_checker").is_dir() and (self._folder / "feature_extractor").is_dir()
        inpaints = unet.config.in_channels == _INPAINTING_CHANNELS
        index = {
            "_class_name": "StableDiffusionInpaintPipeline" if inpaints else "StableDiffusionPipeline",
            "feature_extractor": ["transformers", "CLIPImageProcessor"] if checker else [None, None],
            "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"] if checker else [None, None],
            "requires_safety_checker": checker,
            "scheduler": ["diffusers", scheduler["_class_name"]],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        }
        _write_json(self._folder / INDEX, index)


def _read_family(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((files(__package__) / "families" / f"{name}.json").read_text(encoding="utf-8"))
    return content


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """In a precision that every engine can load: 8-bit floats become float16, anything else float32."""
    if tensor.dtype not in _KEPT_PRECISIONS:
        tensor = tensor.to(torch.float16 if tensor.element_size() == 1 else torch.float32)
    return tensor.contiguous()


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
