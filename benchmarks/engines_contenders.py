"""Contenders of ``benchmarks.engines``: their settings and their preparation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from triton_diffusers.engines.compilers import COMPILERS

FAST = COMPILERS["openvino"]().precisions[0]
"""The fastest precision of this processor except int8: bfloat16, or float32 where it has none."""
OURS = "ours"
DEFAULT = "diffusers"
_CONTROLLED = f"{DEFAULT}-controlnet"
_ADDITIONS = {"controlnet": "with a ControlNet", "lora": "with a LoRA", "fixed": "size fixed"}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One way to set a contender up: an ``artifact`` (a key of ``ARTIFACTS``, or empty) and its module's options."""

    artifact: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A row of the table.

    ``python`` is the virtual environment that it runs in, a file in ``contenders/requirements``, or empty for the
    project's own. Of several ``settings`` the fastest is found first. ``tiny`` says whether it can run a tiny model,
    ``even`` whether all its steps take the same time. ``beside`` is whom its figures are compared with.
    """

    label: str
    module: str
    settings: Sequence[Setting]
    precision: str
    python: str = ""
    tiny: bool = True
    even: bool = True
    beside: str = DEFAULT
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """Preparation of the model: ``command``, with ``{model}``, ``{side}``, ``{folder}`` and names of artifacts in it.

    ``python`` is as in ``Contender``; ``needs`` are artifacts that it is made from. One that is ``kept_by_model`` lies
    in the model directory, and its command knows by itself whether there is anything to do.
    """

    command: Sequence[str]
    python: str = ""
    needs: Sequence[str] = ()
    kept_by_model: bool = False


_MODELS = "benchmarks.contenders.openvino_models"
_EAGER = "benchmarks.contenders.pipeline"
_SHORT = {"bfloat16": "bf16", "float32": "f32"}[FAST]
_BEST_EAGER = {"dtype": FAST, "channels_last": True}


def _built(engine: str, precision: str) -> Artifact:
    """Our own build; what random weights draw says nothing about quality, so the check is short and always passes."""
    what = ("build", "--model", "{model}", "--engine", engine, "--precision", precision)
    return Artifact(
        command=("-m", "triton_diffusers", *what, "--side", "{side}", "--steps", "4", "--min-psnr", "0"),
        kept_by_model=True,
    )


ARTIFACTS: Mapping[str, Artifact] = {
    "ir-fp16": Artifact(python="optimum", command=("-m", _MODELS, "export", "{model}/base_model", "{folder}")),
    "ir-int8-full": Artifact(
        python="optimum", command=("-m", _MODELS, "full", "{ir-fp16}", "{folder}"), needs=("ir-fp16",)
    ),
    "ir-int8-hybrid": Artifact(
        python="optimum", command=("-m", _MODELS, "hybrid", "{ir-fp16}", "{folder}"), needs=("ir-fp16",)
    ),
    **{
        f"{engine}-{precision}": _built(engine, precision)
        for engine, precision in (("openvino", FAST), ("openvino", "int8"), ("inductor", FAST))
    },
}


def _openvino(artifact: str) -> list[Setting]:
    return [Setting(artifact=artifact, options={"precision": _SHORT, "static": static}) for static in (True, False)]


def _cpp(wtypes: Sequence[str]) -> list[Setting]:
    plain = [{"wtype": wtype, "vae_direct": True} for wtype in wtypes]
    best = plain[0]
    return [Setting(options=options) for options in (*plain, {**best, "flash": True}, {**best, "direct": True})]


def _ours(
    engine: str,
    precision: str,
    profile: str = "exact",
    addition: str = "",
    beside: str = DEFAULT,
) -> Contender:
    """``addition`` is an option: what adds to the work, ``lora`` or ``controlnet``, or ``fixed``."""
    name, exact = f"{engine}-{precision}", profile == "exact"
    details = [
        *(["int8"] if precision == "int8" else []),
        *([] if exact else [profile]),
        *([_ADDITIONS[addition]] if addition else []),
    ]
    options = {"engine": name, "profile": profile, **({addition: True} if addition else {})}
    return Contender(
        label=", ".join(["Triton Diffusers", engine, *details]),
        module="benchmarks.contenders.ours",
        settings=[Setting(artifact=name, options=options)],
        precision=precision,
        even=exact,
        beside=beside,
    )


CONTENDERS: Mapping[str, Contender] = {
    DEFAULT: Contender(
        label="diffusers, as it is",
        module=_EAGER,
        settings=[Setting(options={"dtype": "float32"})],
        precision="float32",
    ),
    "eager": Contender(
        label=f"diffusers, {_SHORT} and channels-last",
        module=_EAGER,
        settings=[Setting(options=_BEST_EAGER)],
        precision=FAST,
    ),
    "compile": Contender(
        label="torch.compile",
        module=_EAGER,
        settings=[Setting(options={**_BEST_EAGER, "compile": True})],
        precision=FAST,
        environment={"TORCHINDUCTOR_FREEZING": "1", "TORCHINDUCTOR_CACHE_DIR": "{cache}/inductor"},
    ),
    f"{OURS}-eager": Contender(
        label="Triton Diffusers, eager",
        module="benchmarks.contenders.ours",
        settings=[Setting(options={"engine": "eager", "dtype": FAST})],
        precision=FAST,
    ),
    f"{OURS}-openvino": _ours("openvino", FAST),
    f"{OURS}-openvino-fixed": _ours("openvino", FAST, addition="fixed"),
    f"{OURS}-openvino-cached": _ours("openvino", FAST, "cached"),
    f"{OURS}-openvino-fast": _ours("openvino", FAST, "fast"),
    f"{OURS}-inductor": _ours("inductor", FAST),
    _CONTROLLED: Contender(
        label="diffusers, as it is, with a ControlNet",
        module=_EAGER,
        settings=[Setting(options={"dtype": "float32", "controlnet": True})],
        precision="float32",
        beside=_CONTROLLED,
    ),
    f"{OURS}-openvino-controlnet": _ours("openvino", FAST, addition="controlnet", beside=_CONTROLLED),
    f"{OURS}-openvino-lora": _ours("openvino", FAST, addition="lora", beside=f"{OURS}-openvino"),
    "optimum": Contender(
        label="optimum-intel",
        module="benchmarks.contenders.optimum",
        settings=_openvino("ir-fp16"),
        precision=FAST,
        python="optimum",
    ),
    "genai": Contender(
        label="OpenVINO GenAI",
        module="benchmarks.contenders.genai",
        settings=_openvino("ir-fp16"),
        precision=FAST,
        python="genai",
    ),
    "sdcpp": Contender(
        label="stable-diffusion.cpp",
        module="benchmarks.contenders.sdcpp",
        settings=_cpp(("f16", "bf16")),
        precision="16 bits",
        python="sdcpp",
        tiny=False,
    ),
    f"{OURS}-openvino-int8": _ours("openvino", "int8"),
    f"{OURS}-openvino-int8-fixed": _ours("openvino", "int8", addition="fixed"),
    "optimum-int8": Contender(
        label="optimum-intel, int8",
        module="benchmarks.contenders.optimum",
        settings=[*_openvino("ir-int8-full"), *_openvino("ir-int8-hybrid")],
        precision="int8",
        python="optimum",
    ),
    "genai-int8": Contender(
        label="OpenVINO GenAI, int8",
        module="benchmarks.contenders.genai",
        settings=[*_openvino("ir-int8-full"), *_openvino("ir-int8-hybrid")],
        precision="int8",
        python="genai",
    ),
    "sdcpp-int8": Contender(
        label="stable-diffusion.cpp, q8_0",
        module="benchmarks.contenders.sdcpp",
        settings=_cpp(("q8_0",)),
        precision="int8",
        python="sdcpp",
        tiny=False,
    ),
}
