"""Use OpenAI's Python package on a gateway, and print what it returns as JSON; run in its own virtual environment."""

import json
import sys
from pathlib import Path

import openai


def main(url: str, folder: Path) -> None:
    """Call everything that the gateway has of the images API; ``folder`` has the input images."""
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=1)
    small = {"prompt": "a red apple", "size": "64x64", "extra_body": {"seed": 7, "steps": 2, "embed_metadata": False}}
    image, mask = folder / "image.png", folder / "mask.png"
    made = client.images.generate(n=2, quality="high", **small)
    by_url = client.images.generate(response_format="url", **small)
    with image.open("rb") as picture, mask.open("rb") as hole:
        edit = client.images.edit(image=picture, mask=hole, **{**small, "size": "auto"})
    edit_of_list = client.images.edit(image=[image.read_bytes()], output_format="jpeg", **small)
    variation = client.images.create_variation(image=image.read_bytes(), extra_body={"steps": 2})
    long = {**small, "extra_body": {"seed": 7, "steps": 100}, "size": "128x128"}
    events = list(client.images.generate(stream=True, partial_images=2, **long))
    found = {
        "version": openai.__version__,
        "generations": [data.b64_json for data in made.data],
        "usage": made.usage.total_tokens,
        "url": by_url.data[0].url,
        "edit": edit.data[0].b64_json,
        "edit_of_list": edit_of_list.data[0].b64_json,
        "variation": variation.data[0].b64_json,
        "stream": [(event.type, event.size, event.b64_json) for event in events],
        "models": [model.id for model in client.models.list()],
        "model": client.models.retrieve("ensemble").id,
        "errors": [error_of(client, **small), error_of(client, **{**small, "model": "gpt-image-2"})],
    }
    print(json.dumps(found))


def error_of(client: openai.OpenAI, **fields: object) -> list[object]:
    """Return the class, status, param and code of the error of an invalid request."""
    try:
        client.images.generate(**{"model": "ensemble", **fields, "size": "9000x16"})
    except openai.APIStatusError as error:
        return [type(error).__name__, error.status_code, error.param, error.code]
    return []


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
