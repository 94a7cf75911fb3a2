"""Each kind of change is what LyCORIS or PEFT makes of the same file, and what cannot be is refused by name."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import peft
import pytest
import torch
from lycoris.modules.full import FullModule
from lycoris.modules.glora import GLoRAModule
from lycoris.modules.ia3 import IA3Module
from lycoris.modules.locon import LoConModule
from lycoris.modules.loha import LohaModule
from lycoris.modules.lokr import LokrModule
from lycoris.modules.norms import NormModule
from torch import nn

from triton_diffusers.adapters.lora import Lora, LoraSet, target_modules
from triton_diffusers.adapters.lora.changes import DenseChange, DoraChange, HadamardChange, KroneckerChange
from triton_diffusers.adapters.lora.layer import LoraError, LoraLayer
from triton_diffusers.adapters.lora.reader import LoraReader
from triton_diffusers.engines.eager import LoraHooks
from triton_diffusers.util.cache import LruCache

PATH, NAME = "unet.mid_block.conv", "lora_unet_mid_block_conv"

LAYERS: Mapping[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(24, 20),
    "square": lambda: nn.Linear(24, 24),
    "1×1": lambda: nn.Conv2d(24, 20, 1),
    "3×3": lambda: nn.Conv2d(12, 16, 3, padding=1),
}
KINDS: Mapping[str, tuple[Any, dict[str, Any]]] = {
    "LoCon": (LoConModule, {}),
    "LoCon of Tucker": (LoConModule, {"use_tucker": True}),
    "LoHa": (LohaModule, {}),
    "LoHa of Tucker": (LohaModule, {"use_tucker": True}),
    "LoHa of a high rank": (LohaModule, {"lora_dim": 6}),
    "LoKr of low rank": (LokrModule, {"factor": 2, "lora_dim": 2, "decompose_both": True}),
    "LoKr with a whole first factor": (LokrModule, {"factor": 4, "lora_dim": 1}),
    "LoKr of whole factors": (LokrModule, {"factor": 4, "lora_dim": 1000, "full_matrix": True}),
    "LoKr of Tucker": (LokrModule, {"factor": 2, "lora_dim": 2, "use_tucker": True}),
    "full": (FullModule, {}),
    "IA3 of outputs": (IA3Module, {}),
    "IA3 of inputs": (IA3Module, {"train_on_input": True}),
    "GLoRA": (GLoRAModule, {}),
}
DECOMPOSED = [kind for kind in KINDS if kind.startswith("Lo")]


def made(kind: str, layer: nn.Module, **kwargs: Any) -> Any:
    """LyCORIS's own module on a layer, with random weights."""
    module, options = KINDS[kind]
    torch.manual_seed(1)
    network = module(NAME, layer, **{"lora_dim": 3, "alpha": 2.0, **options, **kwargs})
    for name, parameter in network.named_parameters():
        if name.startswith("dora_scale"):
            parameter.data.mul_(0.7 + 0.6 * torch.rand_like(parameter))
        else:
            parameter.data.copy_(torch.randn_like(parameter) * 0.4)
    return network


def file_of(network: Any) -> dict[str, torch.Tensor]:
    """Return the tensors that LyCORIS saves."""
    return {f"{NAME}.{key}": tensor.detach().clone() for key, tensor in network.state_dict().items()}


def trained(layer: nn.Module, network: Any, inputs: torch.Tensor) -> torch.Tensor:
    """Return the output of LyCORIS in training; its merged weights would have the scale of LoHa and LoKr twice."""
    network.apply_to()
    network.eval()
    with torch.no_grad():
        outputs: torch.Tensor = layer(inputs)
    return outputs


class Model(nn.Module):
    """A layer at the path that files name."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.mid_block = nn.ModuleDict({"conv": layer})

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.mid_block["conv"](inputs)
        return outputs


def loras(model: nn.Module, tensors: Mapping[str, torch.Tensor], weight: float = 1.0, name: str = "a") -> LoraSet:
    targets = {path: tuple(layer.weight.shape) for path, layer in target_modules("unet", model)}
    return LoraSet.of([(Lora((name, 1, 1), *LoraReader(targets).read(tensors, {})), weight)])


def ours(model: nn.Module, inputs: torch.Tensor, *rows: LoraSet | None) -> torch.Tensor:
    with torch.inference_mode(), LoraHooks("unet", model, LruCache(2**20)).applied(rows):
        outputs: torch.Tensor = model(inputs)
    return outputs


def check(layer: nn.Module, tensors: Mapping[str, torch.Tensor], inputs: torch.Tensor, expected: torch.Tensor) -> None:
    """Check the first row, beside one of another LoRA and one without."""
    model = Model(layer)
    plain, other = layer(inputs), {f"{NAME}.diff_b": torch.full((len(expected[0]),), 0.5)}
    if expected.dim() == 2:
        other = {f"{NAME}.diff_b": torch.full((expected.shape[1],), 0.5)}
    made = ours(model, inputs, loras(model, tensors), loras(model, other, name="b"), None)
    torch.testing.assert_close(made[:1], expected[:1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(made[1], plain[1] + 0.5)
    torch.testing.assert_close(made[2], plain[2])
    assert (expected - plain).abs().max() > 0.05


def inputs_of(layer: nn.Module) -> torch.Tensor:
    """Three rows."""
    generator = torch.Generator().manual_seed(2)
    return torch.randn(3, layer.weight.shape[1], *[5] * (layer.weight.dim() - 2), generator=generator)


@pytest.fixture
def layer(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return LAYERS[request.param]().requires_grad_(False)


@pytest.mark.parametrize("layer", LAYERS, indirect=True)
@pytest.mark.parametrize("kind", KINDS)
def test_a_change_is_the_one_of_lycoris(kind: str, layer: nn.Module) -> None:
    own, inputs, network = copy.deepcopy(layer), inputs_of(layer), made(kind, layer)
    expected = trained(layer, network, inputs)
    check(own, file_of(network), inputs, expected)  # of a full difference, LyCORIS knows only now what it is


@pytest.mark.parametrize("layer", LAYERS, indirect=True)
@pytest.mark.parametrize("kind", DECOMPOSED)
@pytest.mark.parametrize("on_outputs", [True, False])
def test_dora_is_the_one_of_lycoris(kind: str, layer: nn.Module, on_outputs: bool) -> None:
    own, inputs = copy.deepcopy(layer), inputs_of(layer)
    network = made(kind, layer, weight_decompose=True, wd_on_out=on_outputs)
    tensors, expected = file_of(network), trained(layer, network, inputs)
    assert f"{NAME}.dora_scale" in tensors
    check(own, tensors, inputs, expected)


def test_a_dora_of_half_the_weight_is_half_of_the_way() -> None:
    layer = LAYERS["3×3"]().requires_grad_(False)
    inputs, own = inputs_of(layer), Model(copy.deepcopy(layer))
    network = made("LoCon", layer, weight_decompose=True)
    plain, tensors, whole = own(inputs), file_of(network), trained(layer, network, inputs)
    half = ours(own, inputs, loras(own, tensors, 0.5))
    torch.testing.assert_close(half, (plain + whole) / 2, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", [nn.LayerNorm(6), nn.GroupNorm(3, 6)], ids=["layer", "group"])
def test_normalizations_are_those_of_lycoris(norm: nn.Module) -> None:
    torch.manual_seed(0)
    inputs, own = torch.randn(3, 6), copy.deepcopy(norm)
    network = NormModule(NAME, norm)
    for parameter in network.parameters():
        parameter.data.copy_(torch.randn_like(parameter))
    tensors = {key: tensor for key, tensor in file_of(network).items() if key.endswith("_norm")}
    check(own, tensors, inputs, trained(norm, network, inputs))


PEFT: Mapping[str, Any] = {
    "DoRA": peft.LoraConfig(use_dora=True, r=4, lora_alpha=4, init_lora_weights=False),
    "a bias": peft.LoraConfig(lora_bias=True, r=4, lora_alpha=4, init_lora_weights=False),
    "LoHa": peft.LoHaConfig(r=4, alpha=4, init_weights=False),
    "LoKr": peft.LoKrConfig(r=1, alpha=1, init_weights=False),
}


@pytest.mark.filterwarnings("ignore:Adapter 'default'")  # PEFT doubts its own biases
@pytest.mark.parametrize("layer", LAYERS, indirect=True)
@pytest.mark.parametrize("kind", PEFT)
def test_a_change_is_the_one_of_peft(kind: str, layer: nn.Module) -> None:
    own, inputs, config = copy.deepcopy(layer), inputs_of(layer), copy.deepcopy(PEFT[kind])
    config.target_modules = {"conv"}
    torch.manual_seed(3)
    network = peft.get_peft_model(Model(layer), config).eval()
    for name, parameter in network.named_parameters():
        if "magnitude" in name:
            parameter.data.mul_(0.7 + 0.6 * torch.rand_like(parameter))
        elif parameter.requires_grad:
            parameter.data.copy_(torch.randn_like(parameter) * 0.3)
    tensors = peft.get_peft_model_state_dict(network)
    with torch.no_grad():
        check(own, {f"unet.{key}": tensor for key, tensor in tensors.items()}, inputs, network(inputs))


W1, W2 = torch.ones(2, 2), torch.ones(10, 12)


@pytest.mark.parametrize(
    ("kind", "form"),
    [
        ("LoHa", LoraLayer),
        ("LoHa of a high rank", HadamardChange),
        ("LoKr with a whole first factor", LoraLayer),
        ("LoKr of whole factors", KroneckerChange),
        ("full", DenseChange),
    ],
)
def test_a_change_is_kept_in_its_smallest_form(kind: str, form: type) -> None:
    layer = LAYERS["linear"]()
    tensors = file_of(made(kind, layer))
    change = read(tensors, layer)
    assert isinstance(change, form)
    assert change.nbytes <= max(layer.weight.nbytes, sum(tensor.nbytes for tensor in tensors.values()))


def read(tensors: Mapping[str, torch.Tensor], layer: nn.Module) -> Any:
    contents = LoraReader({PATH: tuple(layer.weight.shape)}).read(tensors, {})
    return contents.layers.get(PATH) or contents.changes[PATH].weight


def test_a_full_difference_stays_in_half_precision() -> None:
    layer = LAYERS["linear"]()
    assert read({f"{NAME}.diff": torch.ones(20, 24).half()}, layer).difference.dtype is torch.float16


def test_a_dora_of_a_weight_of_zeros_has_no_infinite_numbers() -> None:
    change = DoraChange(LoraLayer(torch.zeros(1, 4), torch.zeros(3, 1)), torch.ones(3, 1))
    assert torch.equal(change.of(torch.zeros(3, 4)), torch.zeros(3, 4))


def test_an_older_glora_has_its_parts_in_the_opposite_order() -> None:
    torch.manual_seed(0)
    layer = LAYERS["linear"]()
    a1, a2, b1, b2 = (torch.randn(*shape) for shape in ((3, 24), (24, 3), (3, 24), (20, 3)))
    parts = {"a1": a1, "a2": a2, "b1": b1, "b2": b2}
    change = read({f"{NAME}.{part}.weight": weight for part, weight in parts.items()}, layer)
    torch.testing.assert_close(change.of(layer.weight.data), b2 @ b1 + layer.weight.data @ a2 @ a1)


REFUSED: Mapping[str, tuple[Mapping[str, torch.Tensor], str]] = {
    "two kinds": ({"diff": torch.ones(20, 24), "lokr_w1": W1, "lokr_w2": W2}, "LoKr and a full difference"),
    "half a LoHa": ({"hada_w1_a": torch.ones(20, 2), "hada_w1_b": torch.ones(2, 24)}, "no hada_w2_a"),
    "no second factor": ({"lokr_w1": W1}, "no lokr_w2_a"),
    "no first factor": ({"lokr_w2": W2}, "no lokr_w1_a"),
    "a factor twice": ({"lokr_w1": W1, "lokr_w1_a": W1, "lokr_w2": W2}, "both whole and of low rank"),
    "a factor that does not divide": ({"lokr_w1": torch.ones(3, 2), "lokr_w2": W2}, "do not divide"),
    "a factor of no size": ({"lokr_w1": torch.ones(0, 2), "lokr_w2": W2}, "do not divide"),
    "a factor of a wrong size": ({"lokr_w1": W1, "lokr_w2": torch.ones(10, 6)}, r"\(10, 6\) does not match"),
    "a huge rank": ({"lokr_w1": W1, "lokr_w2_a": torch.ones(10, 2000), "lokr_w2_b": torch.ones(2000, 12)}, "2000"),
    "a difference of another shape": ({"diff": torch.ones(24, 20)}, r"\(24, 20\) does not match"),
    "a difference of NaN": ({"diff": torch.full((20, 24), torch.nan)}, "NaN"),
    "a bias of another shape": ({"diff_b": torch.ones(24)}, r"\(24,\) does not match"),
    "a scale alone": ({"dora_scale": torch.ones(20, 1)}, "no weights beside"),
    "a scale of no layer": ({"diff": torch.ones(20, 24), "dora_scale": torch.ones(7, 1)}, "a number for each output"),
    "a scale of no inputs": ({"diff": torch.ones(20, 24), "dora_scale": torch.ones(1, 20)}, "a number for each input"),
    "IA3 that does not say where": ({"weight": torch.ones(20)}, "fit no layer"),
    "IA3 of another size": ({"weight": torch.ones(24), "on_input": torch.tensor(0)}, "a number for each output"),
    "half a GLoRA": ({"a1.weight": torch.ones(24, 2), "a2.weight": torch.ones(2, 24)}, "no glora_b1"),
    "a normalization": ({"w_norm": torch.ones(20)}, "does not match"),
    "OFT": ({"oft_blocks": torch.ones(2, 2, 2)}, "OFT, which is unsupported"),
    "IA3 of PEFT": ({"ia3_l": torch.ones(20, 1)}, "IA3 of PEFT, which is unsupported"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_misfitting_weights_are_refused(case: str) -> None:
    parts, says = REFUSED[case]
    tensors = {f"{NAME}.{part}": weight for part, weight in parts.items()}
    with pytest.raises(LoraError, match=says):
        read(tensors, LAYERS["linear"]())


@pytest.mark.parametrize("part", ["lora_down.weight", "hada_w1_a", "lokr_w1", "on_input", "a1.weight"])
def test_normalizations_have_no_other_kind(part: str) -> None:
    with pytest.raises(LoraError, match="for a normalization only differences are supported"):
        read({f"{NAME}.{part}": torch.ones(1, 1)}, nn.LayerNorm(4))


def test_a_file_may_mix_kinds_and_bundle_embeddings() -> None:
    targets = {"unet.conv_in": (8, 4, 3, 3), "unet.conv_out": (4, 8, 3, 3)}
    contents = LoraReader(targets).read(
        {
            "lora_unet_conv_in.lora_down.weight": torch.ones(2, 4, 3, 3),
            "lora_unet_conv_in.lora_up.weight": torch.ones(8, 2, 1, 1),
            "lora_unet_conv_in.diff_b": torch.ones(8),
            "lora_unet_conv_out.diff": torch.ones(4, 8, 3, 3),
            "bundle_emb.style.string_to_param.*": torch.ones(2, 6),
            "bundle_emb.other.clip_l": torch.ones(2, 6),
        },
        {},
    )
    assert contents.layers.keys() == {"unet.conv_in"}
    assert contents.changes.keys() == targets.keys()
    assert contents.embeddings == ("other", "style")
