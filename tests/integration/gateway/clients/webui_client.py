"""Use ``webuiapi`` on a gateway, and print what it returns as JSON; run in its own virtual environment."""

import json
import sys
from pathlib import Path

import webuiapi
from PIL import Image

SMALL = {"prompt": "a red apple <lora:flat:0.5>", "seed": 7, "width": 64, "height": 64}


def main(address: str, folder: Path) -> None:
    """Call everything that the gateway has of the web UI's API; ``folder`` has the input images."""
    host, _, port = address.partition(":")
    api = webuiapi.WebUIApi(host=host, port=int(port), sampler="Euler a", steps=2)
    image, mask = Image.open(folder / "image.png"), Image.open(folder / "mask.png")
    drawn = api.txt2img(batch_size=2, **SMALL)
    unit = webuiapi.ControlNetUnit(image=image, module="canny", model="blocks")
    controlled = api.txt2img(controlnet_units=[unit], **SMALL)
    part = api.img2img(images=[image], mask_image=mask, **SMALL)
    whole = api.img2img(images=[image], mask_image=mask, inpaint_full_res=False, inpainting_fill=1, **SMALL)
    part.image.save(folder / "part.png")
    api.util_set_model("emoji")
    found = {
        "has_controlnet": api.has_controlnet,
        "seeds": drawn.info["all_seeds"],
        "sizes": {
            "txt2img": [each.size for each in drawn.images],
            "controlnet": [each.size for each in controlled.images],
            "img2img": [api.img2img(images=[image], **SMALL).image.size],
            "part": [part.image.size],
            "whole": [whole.image.size],
            "extras": [api.extra_single_image(image, upscaler_1="Lanczos", upscaling_resize=2).image.size],
            "detect": [api.controlnet_detect(images=[image], module="canny").image.size],
        },
        "infotext": api.png_info(drawn.image).info,
        "model": api.util_get_current_model(),
        "lists": [
            *(api.get_samplers(), api.get_schedulers(), api.get_sd_models(), api.get_sd_vae(), api.get_upscalers()),
            *(api.get_latent_upscale_modes(), api.get_loras(), api.get_hypernetworks(), api.get_face_restorers()),
            *(api.get_realesrgan_models(), api.get_prompt_styles(), api.get_embeddings(), api.get_memory()),
            *(api.get_cmd_flags(), api.get_progress(), api.controlnet_model_list(), api.controlnet_module_list()),
        ],
        "controlnet_version": api.controlnet_version(),
        "nothing_to_stop": [api.interrupt(), api.skip(), api.refresh_checkpoints()],
        "refused": refused(api),
    }
    print(json.dumps(found))


def refused(api: webuiapi.WebUIApi) -> list[object]:
    """Return the status and the detail of a request for the hires fix."""
    try:
        api.txt2img(enable_hr=True, **SMALL)
    except RuntimeError as error:
        status, text = error.args
        return [status, json.loads(text)["detail"]]
    return []


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
