"""``serve`` with the flags of the reference's deployments."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx2

from tests.integration.conftest import ROOT, TritonStarter

BODY = {"task_id": "t2i", "prompt": "一个红苹果", "steps": 2, "width": 64, "height": 64, "seed": "7"}


def test_a_deployment_of_the_reference_answers_with_urls_of_its_bucket(
    start_triton: TritonStarter, tmp_path: Path
) -> None:
    flags = (
        *("--func_name", "base", f"--model_dir={ROOT / 'models' / 'emoji'}", f"--save_dir={tmp_path}"),
        *("--oss_save_dir", "oss://bucket/zxy/0605/", "--region", "hangzhou", "--use_translate", "--close_safety"),
    )
    server = start_triton(gateway=True, args=flags)
    (url,) = re.findall(r"the gateway listens on (http://\S+)", server.log_text())
    with httpx2.Client(base_url=url, timeout=120) as client:
        for path in ("/", "/api/predict/diffuser_base_ch"):
            reply = client.post(path, content=json.dumps(BODY)).json()
            assert reply["success"] == 1, reply
            assert reply["prompt"].isascii()
            (image_url,), (oss_url,) = reply["image_url"], reply["oss_url"]
            name = oss_url.removeprefix("oss://bucket/zxy/0605/")
            assert re.fullmatch(r"result/t2i_\d{8}_\d{6}.*_0\.png", name)
            assert image_url == f"https://bucket.oss-cn-hangzhou.aliyuncs.com/zxy/0605/{name}"
            assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
