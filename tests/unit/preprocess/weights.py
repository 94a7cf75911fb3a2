"""Weight files in the published layouts, with genuine names, shapes and folders, and random values.

``layouts.json`` has the tensors of the files of ``lllyasviel/Annotators``, and each network's outputs in another
implementation (controlnet_aux 0.0.10) for ``random_tensors`` and ``sample_input``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

LAYOUTS: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "data" / "preprocessors" / "layouts.json").read_text(encoding="utf-8")
)
HED, LINEART, MLSD = "ControlNetHED.pth", "sk_model.pth", "mlsd_large_512_fp32.pth"


def random_tensors(file: str) -> dict[str, torch.Tensor]:
    """Return fixed random tensors for a file, scaled so that they keep a signal's strength."""
    generator = torch.Generator().manual_seed(7)
    tensors = {}
    for name, shape in LAYOUTS[file]["tensors"].items():
        if name.endswith("num_batches_tracked"):
            tensors[name] = torch.tensor(1)
        elif name.endswith("running_var"):
            tensors[name] = torch.rand(shape, generator=generator) + 0.5
        else:
            inputs = 4.0
            for length in shape[1:]:
                inputs *= length if len(shape) > 1 else 1
            tensors[name] = torch.randn(shape, generator=generator) * (8 / inputs) ** 0.5
    return tensors


def sample_input(file: str) -> torch.Tensor:
    """Return a network's input (1, channels, 64, 128)."""
    channels = 4 if file == MLSD else 3
    image = torch.rand((1, channels, 64, 128), generator=torch.Generator().manual_seed(3))
    return image * 255 if file == HED else image


def write_annotator(root: Path, file: str) -> Path:
    """Write one of the annotators' files below the preprocessors' folder; HED's in half precision, as published."""
    path = root / "annotators" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = random_tensors(file)
    if file == HED:
        tensors = {name: tensor.half() for name, tensor in tensors.items()}
    if file == MLSD:  # lines that end within the image
        tensors["block23.conv3.weight"] *= 0.002
    torch.save(tensors, path)
    return path


def _write(model: Any, processor: dict[str, Any], folder: Path) -> Path:
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def write_depth(root: Path) -> Path:
    """Write a small DPT-Hybrid like ``Intel/dpt-hybrid-midas``."""
    from transformers import DPTConfig, DPTForDepthEstimation

    torch.manual_seed(0)
    backbone = {
        "model_type": "bit", "global_padding": "same", "layer_type": "bottleneck", "depths": [1, 1, 1],
        "out_features": ["stage1", "stage2", "stage3"], "embedding_dynamic_padding": True,
        "hidden_sizes": [16, 16, 32, 32], "num_groups": 2,
    }  # fmt: skip
    config = DPTConfig(
        is_hybrid=True, backbone_config=backbone, backbone_featmap_shape=[1, 32, 4, 4], image_size=64, patch_size=16,
        hidden_size=32, num_hidden_layers=4, num_attention_heads=4, intermediate_size=32,
        backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[16, 16, 32, 32], fusion_hidden_size=16,
        readout_type="project", reassemble_factors=[1, 1, 1, 0.5], neck_ignore_stages=[0, 1],
    )  # fmt: skip
    processor = {
        "do_normalize": True, "do_rescale": True, "do_resize": True, "ensure_multiple_of": 1,
        "feature_extractor_type": "DPTFeatureExtractor", "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
        "image_processor_type": "DPTImageProcessor", "keep_aspect_ratio": False, "resample": 2,
        "rescale_factor": 1 / 255, "size": {"height": 64, "width": 64},
    }  # fmt: skip
    return _write(DPTForDepthEstimation(config), processor, root / "depth")


def write_segmentation(root: Path, classes: int = 150) -> Path:
    """Write a small UPerNet on ConvNeXt like ``openmmlab/upernet-convnext-small``."""
    from transformers import ConvNextConfig, UperNetConfig, UperNetForSemanticSegmentation

    torch.manual_seed(0)
    backbone = ConvNextConfig(
        hidden_sizes=[8] * 4, depths=[1] * 4, out_features=["stage1", "stage2", "stage3", "stage4"]
    )
    config = UperNetConfig(
        backbone_config=backbone, hidden_size=16, auxiliary_in_channels=8, auxiliary_channels=8, num_labels=classes
    )
    processor = {
        "do_normalize": True, "do_reduce_labels": True, "do_rescale": True, "do_resize": True,
        "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225],
        "image_processor_type": "SegformerImageProcessor", "resample": 2, "rescale_factor": 1 / 255,
        "size": {"height": 64, "width": 64},
    }  # fmt: skip
    return _write(UperNetForSemanticSegmentation(config), processor, root / "segmentation")


def write_people(root: Path, label: int = 0) -> Path:
    """Write a small RT-DETR like ``PekingU/rtdetr_r18vd_coco_o365`` that detects one class only; 0 is a person."""
    from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrResNetConfig

    torch.manual_seed(0)
    backbone = RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8] * 4, depths=[1] * 4, layer_type="basic",
        out_features=["stage2", "stage3", "stage4"], out_indices=[2, 3, 4],
    )  # fmt: skip
    config = RTDetrConfig(
        backbone_config=backbone, encoder_hidden_dim=16, encoder_in_channels=[8] * 3, encoder_ffn_dim=16,
        encoder_attention_heads=2, d_model=16, num_queries=6, decoder_in_channels=[16] * 3, decoder_ffn_dim=16,
        decoder_layers=2, decoder_attention_heads=2, id2label={0: "person", 1: "bicycle"},
        label2id={"person": 0, "bicycle": 1}, num_denoising=0,
    )  # fmt: skip
    model = RTDetrForObjectDetection(config)
    for head in model.model.decoder.class_embed:
        torch.nn.init.zeros_(head.weight)
        head.bias.data = torch.tensor([-5.0, -5.0])
        head.bias.data[label] = 5.0
    processor = {
        "do_normalize": False, "do_pad": False, "do_rescale": True, "do_resize": True, "format": "coco_detection",
        "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225],
        "image_processor_type": "RTDetrImageProcessor", "resample": 2, "rescale_factor": 1 / 255,
        "size": {"height": 64, "width": 64},
    }  # fmt: skip
    return _write(model, processor, root / "people")


def write_pose(root: Path) -> Path:
    """Write a small ViTPose like ``usyd-community/vitpose-base-simple``, with a high score for every joint."""

    from transformers import VitPoseBackboneConfig, VitPoseConfig, VitPoseForPoseEstimation

    torch.manual_seed(0)
    backbone = VitPoseBackboneConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=32, out_indices=[2]
    )
    model = VitPoseForPoseEstimation(VitPoseConfig(backbone_config=backbone, num_labels=17))
    torch.nn.init.ones_(model.head.conv.bias)
    processor = {
        "do_affine_transform": True, "do_normalize": True, "do_rescale": True, "normalize_factor": 200.0,
        "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225],
        "image_processor_type": "VitPoseImageProcessor", "rescale_factor": 1 / 255,
        "size": {"height": 256, "width": 192},
    }  # fmt: skip
    return _write(model, processor, root / "pose")
