"""Names that other APIs (diffusers, A1111, ComfyUI, OpenAI, …) have for the fields of a request."""

from __future__ import annotations

from collections.abc import Mapping

# The names of each field, in lower case without `_`, `-` and spaces; a name may stand for several fields together.
_NAMES: Mapping[tuple[str, ...], tuple[str, ...]] = {
    ("prompt",): ("text", "input", "inputs", "prompts", "positiveprompt", "positive", "caption"),
    ("negative_prompt",): ("negative", "negprompt", "nprompt", "negativeprompts", "uc", "undesired"),
    ("func_name",): ("mode", "task", "pipeline", "function", "type"),
    ("steps",): (
        "numinferencesteps", "inferencesteps", "numsteps", "nsteps", "samplingsteps", "samplesteps", "ddimsteps",
    ),
    ("cfg_scale",): ("guidancescale", "guidance", "cfg", "scale", "cfgscalevalue", "ucscale"),
    ("scheduler",): (
        "sampler", "samplername", "samplerindex", "samplertype", "samplingmethod", "samplemethod", "schedulername",
        "schedulertype", "noisescheduler",
    ),
    ("width", "height"): ("size", "imagesize", "resolution", "dimensions", "aspectratio", "ratio"),
    ("width",): ("w", "imagewidth"),
    ("height",): ("h", "imageheight"),
    ("image_num",): (
        "n", "niter", "batch", "batchsize", "batchcount", "numimages", "nimages", "nsamples", "numsamples", "samples",
        "numoutputs", "numimagesperprompt", "imagecount", "count",
    ),
    ("seed",): ("randomseed", "manualseed", "noiseseed", "generator", "subseed"),
    ("output_format",): ("imageformat", "outputtype", "format", "mimetype"),
    ("use_base64",): ("responseformat", "returnbase64", "sendimages", "base64"),
    ("image",): (
        "imageurl", "imageurls", "images", "initimage", "initimages", "initimg", "initimageurl", "inputimage",
        "inputimages", "sourceimage", "referenceimage", "img", "img2img",
    ),
    ("mask",): ("maskimage", "maskurl", "maskimageurl", "maskimg", "inpaintmask"),
    ("denoising_strength",): (
        "strength", "denoise", "denoising", "denoisestrength", "imgstrength", "imagestrength", "promptstrength",
        "img2imgstrength",
    ),
    ("lora_path",): ("lora", "loras", "loraname", "loramodel", "loraurl", "adapters"),
    ("lora_attn",): ("lorascale", "loraweight", "loraweights", "lorastrength", "adapterweights"),
    ("controlnet_path",): ("controlnet", "controlnets", "controlnetmodel"),
    ("control_scale",): (
        "controlnetconditioningscale", "conditioningscale", "controlweight", "controlnetscale", "controlnetstrength",
        "controlstrength",
    ),
    ("control_start",): ("controlguidancestart", "guidancestart", "controlnetstart"),
    ("control_end",): ("controlguidanceend", "guidanceend", "controlnetend"),
    ("control_image",): ("controlnetimage", "controlimageurl", "conditioningimage", "hintimage"),
    ("process_func",): ("preprocessor", "module", "controlnetpreprocessor", "processor"),
    ("clip_skip",): ("clipstopatlastlayers", "clipskiplayers", "skipclip"),
    ("use_translate",): ("translate", "translateprompt"),
    ("task_id",): ("requestid", "jobid", "id", "uuid"),
    ("timeout_seconds",): ("timeout", "timelimit", "maxtime", "deadline"),
    ("save_dir",): ("outputdir", "outdir", "savepath", "outputpath", "folder"),
    ("expand",): ("outpaint", "extend", "padding", "outpaintsides"),
}  # fmt: skip
SYNONYMS: Mapping[str, tuple[str, ...]] = {name: fields for fields, names in _NAMES.items() for name in names}


def synonyms_of(name: str) -> tuple[str, ...]:
    """Return the fields that other APIs call ``name``; empty for an unknown name."""
    return SYNONYMS.get("".join(character for character in name.lower() if character not in "_- "), ())
