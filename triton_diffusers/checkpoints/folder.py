"""Load the components of a folder in the diffusers layout.

The pipeline's class in ``model_index.json`` does not matter, since text to image, image to image and inpainting have
equal components; ``compatibility`` rejects other families.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from triton_diffusers.adapters.files import named
from triton_diffusers.checkpoints.compatibility import check_index, check_scheduler, is_given
from triton_diffusers.checkpoints.components import Components
from triton_diffusers.checkpoints.errors import LoadError, one_line
from triton_diffusers.checkpoints.layout import INDEX, VAE_FOLDER, VAE_HINT, WeightFiles, choose
from triton_diffusers.families.errors import UnsupportedComponent
from triton_diffusers.families.family import Parts, family_class
from triton_diffusers.families.registry import FamilyEntry, family_of
from triton_diffusers.util.broken_download import download_fault
from triton_diffusers.util.pickles import read_pickle

log = logging.getLogger(__name__)

# Tensors of a network's layers; files may also have buffers and unused projections.
_IS_LAYER = re.compile(r"(?!vision_model\.).*(?:blocks?\.|layers\.\d|_embedding\.)")
_CLIP = "clip_text_model"
_NUMBERED = re.compile(r"_\d$")  # further components of a kind, such as text_encoder_2
_OLD_UNET_SIDE = 64  # in latents; meant by configs from before diffusers 0.9 that say 32


@dataclass(frozen=True, slots=True)
class OtherVae:
    """A replacement of the folder's autoencoder: its folder, and overrides of its config."""

    folder: Path
    config: Mapping[str, Any] = field(default_factory=dict)


def load_folder(
    folder: Path, *, device: torch.device, dtype: torch.dtype, with_checker: bool, vae: OtherVae | None = None
) -> Components:
    """Load ``folder`` in the precision ``dtype``, whatever that of the files is. Raises ``LoadError``."""
    plan = _read_plan(folder, vae)
    index = plan.index
    checker, extractor = _load_checker(folder, index, dtype) if with_checker else (None, None)
    networks = {
        name: _load_module(folder, index, name, dtype, vae if name == plan.entry.vae else None)
        for name in plan.entry.networks
    }
    for module in (*networks.values(), checker):
        if module is not None:
            module.to(device).eval()
    return plan.components(networks, checker, extractor)


def load_bare_folder(
    folder: Path, *, dtype: torch.dtype, with_checker: bool, vae: OtherVae | None = None
) -> Components:
    """Load ``folder`` with only the weights of the text encoder's embeddings and of the safety checker.

    The embeddings are in the precision ``dtype``, the checker in float32, so that its results do not change. All other
    weights are on the ``meta`` device: shapes without memory. Raises ``LoadError``.
    """
    plan = _read_plan(folder, vae)
    encoders = {name: plan.networks[name] for name in plan.entry.text_encoders}
    for name, encoder in encoders.items():
        if encoder.config.model_type != _CLIP:
            raise LoadError(f"{folder / name}: compiled engines need CLIP's text encoder")
    # float32 is PyTorch's default: with any other precision the libraries change the default of the whole process
    # while they load, beside a running engine.
    checker, extractor = _load_checker(folder, plan.index, torch.float32) if with_checker else (None, None)
    for name, encoder in encoders.items():
        table = _embeddings(folder / name, dtype)
        if table.shape != encoder.get_input_embeddings().weight.shape:
            raise LoadError(f"{folder / name} does not match its config.json: token_embedding.weight")
        encoder.get_input_embeddings().weight = torch.nn.Parameter(table)
    for module in (*plan.networks.values(), checker):
        if module is not None:
            module.eval()
    return plan.components(plan.networks, checker, extractor)


@dataclass(frozen=True, slots=True)
class _Plan:
    """A folder before its weights are read: networks on the ``meta`` device, and the components without weights."""

    entry: FamilyEntry
    index: Mapping[str, Any]
    networks: Mapping[str, Any]
    tokenizers: Mapping[str, Any]
    scheduler_config: dict[str, Any]

    def parts(self, networks: Mapping[str, Any]) -> Parts:
        """Return the configs of the checkpoint."""
        configs = {name: network.config for name, network in networks.items()}
        return Parts(
            configs=configs, tokenizers=self.tokenizers, scheduler_config=self.scheduler_config, index=self.index
        )

    def components(self, networks: Mapping[str, Any], checker: Any, extractor: Any) -> Components:
        """Return the components with these networks, which are mended if an early version wrote them."""
        _mend_old_unet(networks[self.entry.denoiser])
        return Components(
            family=family_class(self.entry).of_parts(self.parts(networks)),
            denoiser=networks[self.entry.denoiser],
            vae=networks[self.entry.vae],
            text_encoders={name: networks[name] for name in self.entry.text_encoders},
            tokenizers=self.tokenizers,
            safety_checker=checker,
            feature_extractor=extractor,
        )


def _read_plan(folder: Path, other_vae: OtherVae | None) -> _Plan:
    """Read everything except weights. Raises ``LoadError`` if the components are unsupported or inconsistent."""
    index = read_index(folder)
    check_index(folder, index)
    entry = family_of(index)
    with torch.device("meta"):
        networks = {
            name: _bare(folder, index, name, other_vae if name == entry.vae else None) for name in entry.networks
        }
    tokenizers = {name: _load_plain(folder, index, name) for name in entry.tokenizers}
    for tokenizer, encoder in zip(tokenizers.values(), entry.text_encoders, strict=True):
        # Tokenizers without a config of their own have no limit at all.
        limit = networks[encoder].config.max_position_embeddings
        tokenizer.model_max_length = min(tokenizer.model_max_length, limit)
    scheduler_config = _read_scheduler(folder, index)
    check_scheduler(folder, scheduler_config)
    plan = _Plan(entry, index, networks, tokenizers, scheduler_config)
    try:
        family_class(entry).check(plan.parts(networks))
    except UnsupportedComponent as error:
        raise LoadError(f"{folder / error.component}: {error.reason}") from error
    return plan


def _bare(folder: Path, index: Mapping[str, Any], component: str, other: OtherVae | None = None) -> Any:
    """Return a network as its config describes it, without weights."""
    place, config = (other.folder, other.config) if other else (folder / component, {})
    if not place.is_dir():
        raise LoadError(f"{folder} has no {component}/{f'; {VAE_HINT}' if component == VAE_FOLDER else ''}")
    model_class = _class_of(folder, index, component)
    try:
        if hasattr(model_class, "load_config"):
            return model_class.from_config({**model_class.load_config(place, local_files_only=True), **config})
        return model_class(model_class.config_class.from_pretrained(place, local_files_only=True))
    except Exception as error:  # libraries may raise anything about a broken file
        raise LoadError(f"{place} cannot be loaded: {one_line(error)}") from error


def _embeddings(place: Path, dtype: torch.dtype) -> torch.Tensor:
    """Return the text encoder's table of embeddings."""
    files = _find_weights(place, dtype)
    if files is None:
        raise LoadError(f"{place} has no weights (*.safetensors or *.bin)")
    _check_downloads(place, files)
    for path in sorted(path for path in place.iterdir() if files.has(path.name) and path.suffix != ".json"):
        try:
            with _opened(path) as (names, read):
                for name in names:
                    if name.endswith("embeddings.token_embedding.weight"):
                        return read(name).to(dtype, copy=True)
        except Exception as error:  # libraries may raise anything about a broken file
            raise LoadError(f"{path} cannot be read: {one_line(error)}") from error
    raise LoadError(f"{place} is incomplete: it has no tensor embeddings.token_embedding.weight")


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Iterable[str], Callable[[str], torch.Tensor]]]:
    """Open a weight file; yields the tensors' names and a function that reads one."""
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as weights:
            yield weights.keys(), weights.get_tensor
    else:
        loaded = read_pickle(path)
        yield loaded.keys(), loaded.__getitem__


def _class_of(folder: Path, index: Mapping[str, Any], component: str) -> Any:
    """Return the library's class that the index names, if it is of the kind that the component needs."""
    import diffusers
    import transformers
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

    library, name = index[component]
    if component == "safety_checker":
        kind: Any = StableDiffusionSafetyChecker
        found = kind if name == kind.__name__ else None
    else:
        module, kind = {
            "unet": (diffusers, diffusers.UNet2DConditionModel),
            "vae": (diffusers, diffusers.AutoencoderKL),
            "scheduler": (diffusers, diffusers.SchedulerMixin),
            "text_encoder": (transformers, _text_encoders()),
            "tokenizer": (transformers, transformers.PreTrainedTokenizerBase),
            "feature_extractor": (transformers, transformers.image_processing_base.ImageProcessingMixin),
        }[_NUMBERED.sub("", component)]
        # Older names of transformers' classes.
        today = name.replace("CLIPFeatureExtractor", "CLIPImageProcessor").replace("CLIPTokenizerFast", "CLIPTokenizer")
        found = getattr(module, today, None)
    if not (isinstance(found, type) and issubclass(found, kind)):
        kinds = " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))
        raise LoadError(f"{folder}/{INDEX}: {component} is {library}.{name}: unsupported, expected {kinds}")
    return found


def _text_encoders() -> tuple[type, ...]:
    """Return the classes of text encoders: CLIP's, and that of Chinese models such as Taiyi."""
    from transformers import BertModel, CLIPTextModel, CLIPTextModelWithProjection

    return CLIPTextModel, CLIPTextModelWithProjection, BertModel


def _load_module(
    folder: Path, index: Mapping[str, Any], component: str, dtype: torch.dtype, other: OtherVae | None = None
) -> Any:
    """Load a network; every parameter must be in its files."""
    place, config = (other.folder, other.config) if other else (folder / component, {})
    model_class = _class_of(folder, index, component)
    files = _find_weights(place, dtype)
    if files is None:
        raise LoadError(f"{place} has no weights (*.safetensors or *.bin)")
    _check_downloads(place, files)
    try:
        module, report = model_class.from_pretrained(
            place,
            dtype=dtype,
            variant=files.variant,
            use_safetensors=files.is_safetensors,
            local_files_only=True,
            output_loading_info=True,
            **config,
        )
    except Exception as error:  # libraries may raise anything about a broken file
        raise LoadError(f"{place} cannot be loaded: {one_line(error)}") from error
    if missing := sorted(map(str, report["missing_keys"])):
        # Missing parameters would be random, and so would the images.
        raise LoadError(f"{place} is incomplete: it has no tensor {missing[0]} ({len(missing)} missing)")
    if mismatched := list(report["mismatched_keys"]):
        raise LoadError(f"{place} does not match its config.json: {mismatched[0]}")
    if surplus := sorted(filter(_IS_LAYER.match, map(str, report["unexpected_keys"]))):
        # The libraries ignore them: a text encoder would lose layers, a UNet its guidance embedding.
        raise LoadError(f"{place}: config.json is invalid: its network has no {named(surplus)}, and its weights have")
    for name, weight in module.named_parameters():
        if not all(bound.isfinite() for bound in weight.detach().aminmax()):
            raise LoadError(f"{place}: {name} holds NaN or infinite values in {str(dtype).removeprefix('torch.')}")
    return module


def _check_downloads(place: Path, files: WeightFiles) -> None:
    """Raise LoadError if one of the files holds no weights, because its download went wrong."""
    for path in sorted(place.iterdir()):
        if files.has(path.name) and (fault := download_fault(path)):
            raise LoadError(f"{path} cannot be read: {fault}")


def _find_weights(place: Path, dtype: torch.dtype) -> WeightFiles | None:
    names = [path.name for path in place.iterdir()] if place.is_dir() else []
    return choose(names, str(dtype).removeprefix("torch."))


def _load_plain(folder: Path, index: Mapping[str, Any], component: str) -> Any:
    """Load a component without weights."""
    place = folder / component
    if not place.is_dir():
        raise LoadError(f"{folder} has no {component}/")
    try:
        return _class_of(folder, index, component).from_pretrained(place, local_files_only=True)
    except LoadError:
        raise
    except Exception as error:
        raise LoadError(f"{place} cannot be loaded: {one_line(error)}") from error


def _load_checker(folder: Path, index: Mapping[str, Any], dtype: torch.dtype) -> tuple[Any, Any]:
    """Load the safety checker and its feature extractor; neither if one is missing, as in many repositories."""
    for component in ("safety_checker", "feature_extractor"):
        if not (is_given(index, component) and (folder / component).is_dir()):
            log.warning("%s has no %s: images are not checked", folder, component)
            return None, None
    if _find_weights(folder / "safety_checker", dtype) is None:
        log.warning("%s has no weights: images are not checked", folder / "safety_checker")
        return None, None
    return _load_module(folder, index, "safety_checker", dtype), _load_plain(folder, index, "feature_extractor")


def _read_scheduler(folder: Path, index: Mapping[str, Any]) -> dict[str, Any]:
    """Return the scheduler's config."""
    return dict(_load_plain(folder, index, "scheduler").config)


def _mend_old_unet(unet: Any) -> None:
    written_by = re.match(r"0\.(\d+)\.", str(unet.config.get("_diffusers_version", "")))
    side = unet.config.sample_size
    if written_by and int(written_by[1]) < 9 and isinstance(side, int) and side < _OLD_UNET_SIDE:
        unet.register_to_config(sample_size=_OLD_UNET_SIDE)


def read_index(folder: Path) -> dict[str, Any]:
    """Return the content of a folder's ``model_index.json``. Raises ``LoadError``."""
    path = folder / INDEX
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LoadError(f"{path} cannot be read: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise LoadError(f"{path} is not a JSON object")
    return content
