"""Names that other APIs have for the fields of a request: diffusers, A1111, ComfyUI, OpenAI and their like."""

from __future__ import annotations

from collections.abc import Mapping

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
