"""The conversion of a checkpoint in one file to a folder in the diffusers layout.

diffusers renames the tensors. The configs, which it would download, are made here from the tensors' shapes, from
values shared by the family (``families/*.json``), and from the sidecar; each overrides the one before it.
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

from triton_diffusers.adapters.controlnet.config import agree
from triton_diffusers.adapters.files import named
from triton_diffusers.checkpoints import kinds as prediction
from triton_diffusers.checkpoints import shapes
from triton_diffusers.checkpoints.errors import LoadError, one_line
from triton_diffusers.checkpoints.kinds import CLIP, OPEN_CLIP, UNET, VAE, uses_open_clip
from triton_diffusers.checkpoints.layout import INDEX
from triton_diffusers.checkpoints.open_clip import used_layers
from triton_diffusers.checkpoints.sidecar import Sidecar
from triton_diffusers.checkpoints.statements import PIXELS, SCALING_FACTOR, Statements, read_statements
from triton_diffusers.checkpoints.vocabulary import write_tokenizer
from triton_diffusers.checkpoints.weights import Weights, in_kept_precision

log = logging.getLogger(__name__)

_CLIP_WORDS = 49_408
_INPAINTING_CHANNELS = 9
_OPEN_CLIP_WIDTH = 1024  # of the text encoder of Stable Diffusion 2.x, whatever its tensors are called
_PIXELS_PER_LATENT = 8  # of the family's autoencoders, which resolutions in metadata are of
_BLOCKS = (  # prefixes of tensors that belong to a network; trainings leave others behind
    "input_blocks.", "middle_block.", "output_blocks.", "time_embed", "out.", "encoder.", "decoder.", "quant_conv.",
    "post_quant_conv.", "label_emb.",
)  # fmt: skip


class Conversion:
    """A conversion of Stable Diffusion 1.x or 2.x.

    ``tensors`` are those of the networks, ``weights`` the whole content of the file.
    """

    _projects = False  # True if the text is projected, too
    _pipeline = "StableDiffusion"
    _more_components: Mapping[str, Any] = {}  # of the index

    def __init__(
        self, source: Path, folder: Path, sidecar: Sidecar, tensors: Mapping[str, torch.Tensor], weights: Weights
    ) -> None:
        self._source, self._folder, self._sidecar = source, folder, sidecar
        self._tensors, self._weights = tensors, weights

    def run(self) -> None:
        """Write every component, the index last."""
        from diffusers import AutoencoderKL, UNet2DConditionModel
        from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint

        shape = shapes.unet_config(self._tensors)
        self._check_training(shape)
        unet_config = self._config("unet", shape, {})
        unet_tensors = convert_ldm_unet_checkpoint(dict(self._tensors), config=unet_config)
        if (guidance := self._tensors.get(f"{UNET}{shapes.GUIDANCE}")) is not None:
            unet_tensors[shapes.GUIDANCE] = guidance
        said = read_statements(self._source, self._sidecar, self._weights, generation=self._generation(unet_config))
        family = self._family(UNet2DConditionModel, unet_config, unet_tensors, said)
        unet = self._build(UNet2DConditionModel, shape, family, "unet")
        self._write(unet, unet_tensors, "unet")
        self._check_leftovers("unet", UNET, unet, unet_tensors)
        if any(name.startswith(VAE) for name in self._tensors):
            vae = self._build(AutoencoderKL, shapes.vae_config(self._tensors), family, "vae")
            vae_tensors = convert_ldm_vae_checkpoint(dict(self._tensors), config=vae.config)
            self._write(vae, vae_tensors, "vae")
            self._check_leftovers("vae", VAE, vae, vae_tensors)
        self._write_text_encoder(family, unet.config.cross_attention_dim)
        scheduler = {**family["scheduler"], **said.scheduler}
        _write_json(self._folder / "scheduler" / "scheduler_config.json", scheduler)
        for folder in self._sidecar.whole_folders:
            shutil.copytree(folder, self._folder / folder.name)
        self._write_tokenizers(family)
        self._write_index(unet, scheduler)

    def _generation(self, unet_config: Mapping[str, Any]) -> int:
        """Return 1 or 2 for Stable Diffusion 1.x and 2.x."""
        is_2 = uses_open_clip(self._tensors) or unet_config["cross_attention_dim"] == _OPEN_CLIP_WIDTH
        return 2 if is_2 else 1

    def _family(
        self, model_class: Any, shape: dict[str, Any], tensors: Mapping[str, torch.Tensor], said: Statements
    ) -> dict[str, Any]:
        """Return what the family's file says, as far as nothing else does."""
        family = self._shared(model_class, shape, tensors, said)
        if (side := said.get(PIXELS)) is not None:
            family["vae"]["sample_size"], family["unet"]["sample_size"] = side, side // _PIXELS_PER_LATENT
        if (factor := said.get(SCALING_FACTOR)) is not None:
            family["vae"]["scaling_factor"] = factor
        if self._sidecar.training is not None:
            heads = self._sidecar.training.unet(shape["block_out_channels"]).get("attention_head_dim")
            family["unet"] |= {} if heads is None else {"attention_head_dim": heads}
        return family

    def _shared(
        self, model_class: Any, shape: dict[str, Any], tensors: Mapping[str, torch.Tensor], said: Statements
    ) -> dict[str, Any]:
        """Return the content of the family's file; 2.x has two that only their predictions tell apart."""
        name = "sd1"
        if self._generation(shape) == 2:
            kind = said.get("prediction_type")
            if kind is None:
                unet = model_class.from_config({**read_family("sd2-base")["unet"], **shape})
                unet.load_state_dict({name: value.float() for name, value in tensors.items()}, strict=False)
                kind = prediction.by_trial(unet.eval())
                log.info("%s: nothing says what it predicts; a trial says %s", self._source, kind)
            name = "sd2-v" if kind == "v_prediction" else "sd2-base"
        return read_family(name)

    def _check_training(self, shape: Mapping[str, Any]) -> None:
        """Raise ``LoadError`` if the training config has other sizes of the UNet than the file."""
        if self._sidecar.training is None:
            return
        given = self._sidecar.training.unet(shape["block_out_channels"])
        for key in sorted(given.keys() - shapes.GUESSED):
            if not agree(given[key], shape[key]):
                raise LoadError(
                    f"{self._sidecar.yaml}: unet_config: {key} {given[key]!r} is invalid: "
                    f"{self._source} has {shape[key]!r}"
                )

    def _config(self, component: str, shape: Mapping[str, Any], family: Mapping[str, Any]) -> dict[str, Any]:
        """Return the component's config: the sidecar may say what tensors cannot tell, and must not deny the rest."""
        given = self._sidecar.config(component)
        for key in sorted((shape.keys() & given.keys()) - shapes.GUESSED):
            if not agree(given[key], shape[key]):
                raise LoadError(
                    f"{self._sidecar.config_file(component)}: {key} {given[key]!r} is invalid: "
                    f"{self._source} has {shape[key]!r}"
                )
        return {**shape, **family, **given}

    def _build(self, model_class: Any, shape: dict[str, Any], family: Mapping[str, Any], component: str) -> Any:
        """Return the model, without memory for its parameters."""
        from accelerate import init_empty_weights

        config = self._config(component, shape, family[component])
        try:
            with init_empty_weights():
                return model_class.from_config(config)
        except Exception as error:  # a sidecar may hold anything
            raise LoadError(f"{self._source}: its {component} cannot be made: {one_line(error)}") from error

    def _write_text_encoder(self, family: Mapping[str, Any], unet_width: int) -> None:
        from transformers import CLIPTextConfig, CLIPTextModel

        is_open = uses_open_clip(self._tensors)
        shape = shapes.open_clip_config(self._tensors) if is_open else shapes.clip_config(self._tensors)
        if shape["hidden_size"] != unet_width:
            raise LoadError(
                f"{self._source}: its unet takes text states of width {unet_width}, "
                f"and its text encoder has width {shape['hidden_size']}: they are of two models"
            )
        if is_open or shape["hidden_size"] == _OPEN_CLIP_WIDTH:
            shape["num_hidden_layers"] = self._text_layers(shape)
        config = CLIPTextConfig(**self._config("text_encoder", shape, family["text_encoder"]))
        tensors = self._open_clip_tensors(config) if is_open else self._clip_tensors()
        self._write_text_model(CLIPTextModel, config, tensors, "text_encoder")

    def _write_text_model(
        self, model_class: Any, config: Any, tensors: Mapping[str, torch.Tensor], component: str
    ) -> None:
        from accelerate import init_empty_weights

        with init_empty_weights():
            model = model_class(config)
        # transformers has removed this prefix from the names, and restored it, more than once.
        if not any(name.startswith("text_model.") for name in model.state_dict()):
            tensors = {name.removeprefix("text_model."): value for name, value in tensors.items()}
        self._write(model, tensors, component)

    def _text_layers(self, shape: Mapping[str, Any]) -> int:
        """Return how many layers of the text encoder are used; the file may have one more."""
        layers = shape["num_hidden_layers"]
        given = self._sidecar.config("text_encoder").get("num_hidden_layers")
        if given is not None:
            if given not in (layers, layers - 1):
                raise LoadError(
                    f"{self._sidecar.config_file('text_encoder')}: num_hidden_layers {given!r} is invalid: "
                    f"{self._source} has {layers} layers, the last of them used or not"
                )
            return int(given)
        tensors = {name: value for name, value in self._tensors.items() if name.startswith("cond_stage_model.")}
        used, reason = used_layers(tensors, layers, shape["hidden_size"], layer=self._sidecar.text_layer)
        log.info("%s: %d of the text encoder's %d layers are used: %s", self._source, used, layers, reason)
        return used

    def _clip_tensors(self) -> dict[str, torch.Tensor]:
        from diffusers.loaders.single_file_utils import convert_ldm_clip_checkpoint

        own = {name: value for name, value in self._tensors.items() if name.startswith(CLIP)}
        tensors: dict[str, torch.Tensor] = convert_ldm_clip_checkpoint(own)
        return tensors

    def _open_clip_tensors(self, config: Any) -> dict[str, torch.Tensor]:
        from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint

        # With another prefix than the original one, with which diffusers always drops layer 23.
        own = {
            f"text.{name.removeprefix(OPEN_CLIP)}": value
            for name, value in self._tensors.items()
            if name.startswith(OPEN_CLIP) and (self._projects or name != f"{OPEN_CLIP}text_projection")
        }
        tensors: dict[str, torch.Tensor] = convert_open_clip_checkpoint(
            SimpleNamespace(config=config), own, prefix="text."
        )
        return tensors

    def _check_leftovers(self, component: str, prefix: str, model: Any, tensors: Mapping[str, torch.Tensor]) -> None:
        """Raise ``LoadError`` for a block of the file that ``model`` does not have; ``tensors`` are by its names."""
        # Conversion may return views; a view starts where its tensor does.
        used = {tensors[name].data_ptr() for name in model.state_dict()}
        left = [
            name
            for name, tensor in self._tensors.items()
            if name.startswith(prefix) and tensor.numel() > 0 and tensor.data_ptr() not in used
        ]
        if blocks := [name for name in left if name.removeprefix(prefix).startswith(_BLOCKS)]:
            raise LoadError(f"{self._source}: its {component} has tensors that fit no such network: {named(blocks)}")
        if left:
            log.warning("%s: these tensors are not used: %s", self._source, named(left))

    def _write(self, model: Any, tensors: Mapping[str, torch.Tensor], component: str) -> None:
        """Write config and weights; every parameter must exist and fit."""
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
            kept[name] = in_kept_precision(tensor)
        folder = self._folder / component
        is_text = component.startswith("text_encoder")
        if is_text:
            architectures = [type(model).__name__]
            _write_json(folder / "config.json", {**model.config.to_diff_dict(), "architectures": architectures})
        else:
            model.save_config(folder)
        save_file(
            kept,
            folder / ("model.safetensors" if is_text else "diffusion_pytorch_model.safetensors"),
            metadata={"format": "pt"},
        )

    def _write_tokenizers(self, family: Mapping[str, Any]) -> None:
        if not (self._folder / "tokenizer").is_dir():
            self._write_tokenizer(family)

    def _write_tokenizer(
        self, family: Mapping[str, Any], text_encoder: str = "text_encoder", tokenizer: str = "tokenizer"
    ) -> None:
        config = json.loads((self._folder / text_encoder / "config.json").read_text(encoding="utf-8"))
        words = config.get("vocab_size", _CLIP_WORDS)
        if words != _CLIP_WORDS:
            raise LoadError(
                f"{self._source}: its text encoder has {words} words and CLIP's tokenizer {_CLIP_WORDS}; "
                f"put the model's own into {self._sidecar.folder / tokenizer}"
            )
        write_tokenizer(
            self._folder / tokenizer,
            pad_token=family["pad_token"],
            length=config.get("max_position_embeddings", 77),
        )

    def _write_index(self, unet: Any, scheduler: Mapping[str, Any]) -> None:
        checker = (self._folder / "safety_checker").is_dir() and (self._folder / "feature_extractor").is_dir()
        inpaints = unet.config.in_channels == _INPAINTING_CHANNELS
        index = {
            "_class_name": f"{self._pipeline}{'Inpaint' if inpaints else ''}Pipeline",
            "feature_extractor": ["transformers", "CLIPImageProcessor"] if checker else [None, None],
            "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"] if checker else [None, None],
            "requires_safety_checker": checker,
            "scheduler": ["diffusers", scheduler["_class_name"]],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
            **self._more_components,
        }
        _write_json(self._folder / INDEX, index)


def read_family(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((files(__package__) / "families" / f"{name}.json").read_text(encoding="utf-8"))
    return content


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
