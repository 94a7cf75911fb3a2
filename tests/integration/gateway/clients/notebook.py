"""A kernel of Jupyter that draws with the client; prints what a notebook would have shown."""

from __future__ import annotations

import json
from typing import Any

from jupyter_client.manager import start_new_kernel

WATCH = """
from triton_diffusers_client import Client
client = Client()
result = client.submit("a red apple", steps=60, width=64, height=64, image_num=2).watch()
"""
MISSING = """
import importlib.util, json
print(json.dumps([n for n in ("triton_diffusers", "torch", "tritonclient", "numpy") if importlib.util.find_spec(n)]))
"""


def main() -> None:
    manager, client = start_new_kernel()
    messages: list[dict[str, Any]] = []
    try:
        for code in (WATCH, "result.images[0]", "result", MISSING):
            client.execute_interactive(code, timeout=300, output_hook=messages.append)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)

    def contents(kind: str) -> list[dict[str, Any]]:
        return [message["content"] for message in messages if message["msg_type"] == kind]

    shown, updates, results = contents("display_data"), contents("update_display_data"), contents("execute_result")
    pages = [content["data"]["text/html"] for content in (*shown, *updates)]
    print(
        json.dumps(
            {
                "errors": [content["evalue"] for content in contents("error")],
                "displayed": len(shown),
                "updates": len(updates),
                "html": next((page for page in pages if "<progress" in page), ""),
                "last_html": pages[-1] if pages else "",
                "preview": any("data:image/jpeg;base64," in page for page in pages),
                "image": list(results[0]["data"]),
                "result": results[1]["data"]["text/html"],
                "missing": json.loads(contents("stream")[-1]["text"]),
            }
        )
    )


if __name__ == "__main__":
    main()
