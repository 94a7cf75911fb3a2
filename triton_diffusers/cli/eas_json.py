"""The command ``eas-json``: a deployment of this server on PAI-EAS, as JSON."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
from typing import Any

DESCRIPTION = """\
Print the JSON of a service on PAI-EAS that runs this server's image, for the console or for eascmd. The model is
mounted at /oss and the results at /result, as in the reference's deployments. Queues of an asynchronous service are
EAS's own: they stand in front of this server's synchronous interface."""
PORT = 8080  # of the gateway
_NAME = re.compile(r"[a-z][a-z0-9_]{0,44}")
_BUCKET = re.compile(r"oss://[a-z0-9][a-z0-9-]{1,61}[a-z0-9]/.*")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--name", type=_name, required=True, help="name of the service")
    parser.add_argument("--image", required=True, help="the image, in a registry that EAS can reach")
    parser.add_argument(
        "--model", type=_bucket, required=True, metavar="OSS", help="oss://bucket/path of the model directory"
    )
    parser.add_argument(
        "--results", type=_bucket, required=True, metavar="OSS", help="oss://bucket/path for the images"
    )
    parser.add_argument("--region", required=True, metavar="NAME", help="region of the results' bucket, as hangzhou")
    parser.add_argument("--async", dest="is_async", action="store_true", help="an asynchronous service, with queues")
    parser.add_argument(
        "--func_name",
        "--func-name",
        choices=("base", "controlnet"),
        default="base",
        help="models (default: %(default)s)",
    )
    parser.add_argument("--use_blade", action="store_true", help="compile in the background")
    parser.add_argument("--use_translate", action="store_true", help="translate Chinese prompts")
    parser.add_argument("--instance-type", metavar="TYPE", help="type of the machines, as ml.gu7i.c8m30.1-gu30")
    parser.add_argument("--instances", type=_positive, default=1, metavar="N", help="machines (default: %(default)s)")
    parser.add_argument("--cpu", type=_positive, default=8, metavar="N", help="cores (default: %(default)s)")
    parser.add_argument("--gpu", type=_count, default=1, metavar="N", help="GPUs (default: %(default)s)")
    parser.add_argument(
        "--memory", type=_positive, default=30_000, metavar="MB", help="memory in MB (default: %(default)s)"
    )


def run(chosen: argparse.Namespace) -> int:
    """Print the deployment; the exit code."""
    json.dump(deployment(chosen), sys.stdout, indent=2, ensure_ascii=False)
    print()
    return 0


def deployment(chosen: argparse.Namespace) -> dict[str, Any]:
    """Return the deployment of a command line."""
    metadata: dict[str, Any] = {
        "name": chosen.name,
        "instance": chosen.instances,
        "cpu": chosen.cpu,
        "gpu": chosen.gpu,
        "memory": chosen.memory,
        "rpc": {"keepalive": 500_000},  # milliseconds that a synchronous request may take
    }
    if chosen.is_async:
        metadata["type"] = "Async"
    document: dict[str, Any] = {
        "name": chosen.name,
        "metadata": metadata,
        "containers": [{"image": chosen.image, "command": _command(chosen), "port": PORT}],
        "storage": [
            {"mount_path": "/oss", "oss": {"path": chosen.model}},
            {"mount_path": "/result", "oss": {"path": chosen.results}},
        ],
        "features": {"eas.aliyun.com/extra-ephemeral-storage": "100Gi"},
    }
    if chosen.instance_type:
        document["cloud"] = {"computing": {"instance_type": chosen.instance_type}}
    return document


def _command(chosen: argparse.Namespace) -> str:
    flags = [f"--{name}" for name in ("use_blade", "use_translate") if getattr(chosen, name)]
    return shlex.join(
        [
            # EAS has checked the caller's token.
            *("env", "TRITON_DIFFUSERS_GATEWAY_OPEN=true", "triton-diffusers", "serve"),
            *("--host", "0.0.0.0", "--gateway-port", str(PORT)),  # noqa: S104  # a container
            *("--model-repository", "/opt/triton-diffusers/model_repository", "--func_name", chosen.func_name),
            *("--oss_save_dir", chosen.results, "--region", chosen.region, *flags),
        ]
    )


def _name(text: str) -> str:
    if _NAME.fullmatch(text):
        return text
    raise argparse.ArgumentTypeError(
        f"{text!r} is invalid: lower-case letters, digits and _, a letter first, at most 45"
    )


def _bucket(text: str) -> str:
    if _BUCKET.fullmatch(text):
        return text
    raise argparse.ArgumentTypeError(f"{text!r} is invalid: expected oss://bucket/path")


def _count(text: str) -> int:
    if text.isascii() and text.isdecimal():
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is invalid: must be a whole number")


def _positive(text: str) -> int:
    if (number := _count(text)) > 0:
        return number
    raise argparse.ArgumentTypeError(f"{text!r} is invalid: must be above 0")
