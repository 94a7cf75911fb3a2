"""Warnings about names in a request that are not fields of the model."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence

from triton_diffusers.api.contract import Input
from triton_diffusers.errors import shown

_MOST_TOLD = 8
_LONGEST_COMPARED = 64
_TRITONS_OWN = "triton_"
# Unknown names come in plain JSON, which cannot carry bytes.
_IN_JSON: Mapping[str, tuple[str, ...]] = {
    name: (f"{name}_link", f"{name}_base64") for name in ("image", "mask", "control_image")
}
_NOT_OF_A_REQUEST: Mapping[str, str] = {
    **dict.fromkeys(
        ("model", "model_name", "model_id", "checkpoint", "ckpt", "ckpt_name", "sd_model_checkpoint"),
        "the server draws with the model directory that it was started with",
    ),
    **dict.fromkeys(("enable_hr", "hr_scale", "hr_upscaler", "upscale"), "images are not enlarged"),
}


def unknown_fields(parameters: Iterable[str], fields: Sequence[Input]) -> tuple[str, ...]:
    """Return a warning for each of Triton's ``parameters``, which do nothing; for the first few, if they are many.

    Triton makes parameters of what is not an input in plain JSON, such as a misspelt field.
    """
    known = [field.name for field in fields]
    names = sorted(name for name in parameters if not name.startswith(_TRITONS_OWN))
    told = [_warning(name, known) for name in names[:_MOST_TOLD]]
    if len(names) > _MOST_TOLD:
        told.append(f"names that are not fields of this model and were ignored: {len(names) - _MOST_TOLD} more")
    return tuple(told)


def _warning(name: str, known: Sequence[str]) -> str:
    if name in known:
        return f"{name}: sent as a parameter and ignored; send it as an input"
    return f"{shown(name)} is not a field of this model and was ignored{_hint(name, known)}"


def _hint(name: str, known: Sequence[str]) -> str:
    if len(name) > _LONGEST_COMPARED:
        return ""
    if reason := _NOT_OF_A_REQUEST.get(name.lower()):
        return f"; {reason}"
    fields = synonyms_of(name)
    if set(fields) <= set(known) and fields:
        words = " or ".join(_IN_JSON[fields[0]]) if fields[0] in _IN_JSON else " and ".join(fields)
        return f"; did you mean {words}?"
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


# By the name without case, `_`, `-` and spaces. Several fields stand for one name where it takes them together.
SYNONYMS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("text", "input", "inputs", "prompts", "positiveprompt", "positive", "caption"), ("prompt",)),
    **dict.fromkeys(("negative", "negprompt", "nprompt", "negativeprompts", "uc", "undesired"), ("negative_prompt",)),
    **dict.fromkeys(("mode", "task", "pipeline", "function", "type"), ("func_name",)),
    **dict.fromkeys(
        ("numinferencesteps", "inferencesteps", "numsteps", "nsteps", "samplingsteps", "samplesteps", "ddimsteps"),
        ("steps",),
    ),
    **dict.fromkeys(("guidancescale", "guidance", "cfg", "scale", "cfgscalevalue", "ucscale"), ("cfg_scale",)),
    **dict.fromkeys(
        ("sampler", "samplername", "samplerindex", "samplertype", "samplingmethod", "samplemethod", "schedulername",
         "schedulertype", "noisescheduler"),
        ("scheduler",),
    ),
    **dict.fromkeys(("size", "imagesize", "resolution", "dimensions", "aspectratio", "ratio"), ("width", "height")),
    "w": ("width",),
    "imagewidth": ("width",),
    "h": ("height",),
    "imageheight": ("height",),
    **dict.fromkeys(
        ("n", "niter", "batch", "batchsize", "batchcount", "numimages", "nimages", "nsamples", "numsamples", "samples",
         "numoutputs", "numimagesperprompt", "imagecount", "count"),
        ("image_num",),
    ),
    **dict.fromkeys(("randomseed", "manualseed", "noiseseed", "generator", "subseed"), ("seed",)),
    **dict.fromkeys(("imageformat", "outputtype", "format", "mimetype"), ("output_format",)),
    **dict.fromkeys(("responseformat", "returnbase64", "sendimages", "base64"), ("use_base64",)),
    **dict.fromkeys(
        ("imageurl", "imageurls", "images", "initimage", "initimages", "initimg", "initimageurl", "inputimage",
         "inputimages", "sourceimage", "referenceimage", "img", "img2img"),
        ("image",),
    ),
    **dict.fromkeys(("maskimage", "maskurl", "maskimageurl", "maskimg", "inpaintmask"), ("mask",)),
    **dict.fromkeys(
        ("strength", "denoise", "denoising", "denoisestrength", "imgstrength", "imagestrength", "promptstrength",
         "img2imgstrength"),
        ("denoising_strength",),
    ),
    **dict.fromkeys(("lora", "loras", "loraname", "loramodel", "loraurl", "adapters"), ("lora_path",)),
    **dict.fromkeys(("lorascale", "loraweight", "loraweights", "lorastrength", "adapterweights"), ("lora_attn",)),
    **dict.fromkeys(("controlnet", "controlnets", "controlnetmodel"), ("controlnet_path",)),
    **dict.fromkeys(
        ("controlnetconditioningscale", "conditioningscale", "controlweight", "controlnetscale", "controlnetstrength",
         "controlstrength"),
        ("control_scale",),
    ),
    **dict.fromkeys(("controlguidancestart", "guidancestart", "controlnetstart"), ("control_start",)),
    **dict.fromkeys(("controlguidanceend", "guidanceend", "controlnetend"), ("control_end",)),
    **dict.fromkeys(("controlnetimage", "controlimageurl", "conditioningimage", "hintimage"), ("control_image",)),
    **dict.fromkeys(("preprocessor", "module", "controlnetpreprocessor", "processor"), ("process_func",)),
    **dict.fromkeys(("clipstopatlastlayers", "clipskiplayers", "skipclip"), ("clip_skip",)),
    **dict.fromkeys(("translate", "translateprompt"), ("use_translate",)),
    **dict.fromkeys(("requestid", "jobid", "id", "uuid"), ("task_id",)),
    **dict.fromkeys(("timeout", "timelimit", "maxtime", "deadline"), ("timeout_seconds",)),
    **dict.fromkeys(("outputdir", "outdir", "savepath", "outputpath", "folder"), ("save_dir",)),
    **dict.fromkeys(("outpaint", "extend", "padding", "outpaintsides"), ("expand",)),
}  # fmt: skip


def synonyms_of(name: str) -> tuple[str, ...]:
    """Return the fields that other APIs call ``name``; none if it is not a name that is known."""
    return SYNONYMS.get("".join(character for character in name.lower() if character not in "_- "), ())
