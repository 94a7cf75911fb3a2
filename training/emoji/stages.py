"""The stages of training, each resumable, in the order in which `all` runs them."""

# mypy: no-warn-return-any

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from transformers import CLIPTextModel, CLIPTokenizer

from training.emoji.assets import Assets
from training.emoji.backgrounds import BACKGROUNDS
from training.emoji.captions import Captioner, evaluation_caption, stray_words
from training.emoji.controlled import controlled_pipeline, generate_controlled
from training.emoji.controlnet import train_controlnet, write_controlnet
from training.emoji.controls import CONTROLS, Control
from training.emoji.decoder import decoder_parameters, train_decoder
from training.emoji.evaluate import evaluate, generate, generate_all, load_pipeline, write_figures
from training.emoji.evidence_controlnets import gather_controlnet_evidence
from training.emoji.export import export_pipeline
from training.emoji.latents import LatentCache, build_cache, measure_scaling_factor
from training.emoji.lora import RANK, add_lora, train_lora
from training.emoji.lora_export import Layers, write_lora
from training.emoji.lora_styles import BLACK, STYLES, WHITE, IconSet, Style, style_pictures
from training.emoji.parallel import Exchange, run_workers
from training.emoji.pictures import load_pictures, to_image
from training.emoji.run import Run, load_checkpoint
from training.emoji.safety import build_safety_checker, train_safety_checker
from training.emoji.sheet import make_sheet
from training.emoji.subjects import Subject, load_subjects
from training.emoji.text_encoder import build_text_encoder, pretrain_text_encoder
from training.emoji.tokenizer import train_tokenizer
from training.emoji.unet import build_unet, train_unet
from training.emoji.vae import build_vae, train_vae
from training.emoji.views import build_view_cache, draw_views, held_out

CAPTIONS_PER_SUBJECT = 150
WORKERS = 2
"""Processes that train the UNet and the decoder and that evaluate, one thread each."""
SAMPLES, SAMPLE_EVERY = 8, 300
"""Pictures on a ControlNet's sheet, and the iterations between two sheets."""
SAMPLE_PROMPTS = (
    "a red apple on a blue background", "a red apple",
    "a banana on a purple background", "a cat face on a yellow background",
    "a fox on a green background", "a panda", "a pizza on a black background", "a red car on a white background",
    "a rocket on a purple background", "a sunflower on a pink background", "a house",
    "a guitar on an orange background",
    "a yellow heart on a red background", "an owl on a gray background", "a robot", "a strawberry",
    "a sailboat on a pink background", "a gift box", "a penguin on a blue background", "a butterfly",
    "a traffic light on a yellow background", "a donut", "a skull on a black background", "a christmas tree",
)  # fmt: skip


@dataclass(frozen=True)
class Iterations:
    """How long each stage trains, in batches."""

    vae: int
    text: int
    unet: int
    decoder: int
    safety: int


@dataclass(frozen=True)
class Workshop:
    """Where things are, and the modules as far as they are trained."""

    cache: Path
    run_dir: Path
    output: Path
    iterations: Iterations
    export_every: int
    guidance: float

    @property
    def assets(self) -> Assets:
        return Assets(self.cache)

    @cached_property
    def subjects(self) -> tuple[Subject, ...]:
        return load_subjects()

    @cached_property
    def pictures(self) -> torch.Tensor:
        """The subjects' pictures, uint8 [N, 4, 128, 128]."""
        return load_pictures([self.assets.picture_path(subject.hexcode) for subject in self.subjects])

    def style_pictures(self, style: Style, ink: str = BLACK) -> torch.Tensor:
        """The subjects in another style, uint8 [N, 4, 128, 128]."""
        return style_pictures(IconSet(self.assets.icons_folder(style.name)), self.subjects, ink)

    def captioner(self, seed: int) -> Captioner:
        return Captioner(seed, stray_words(self.assets.tags(), self.subjects, BACKGROUNDS))

    def tokenizer(self) -> CLIPTokenizer:
        """The tokenizer of this run, trained on first use."""
        folder = self.run_dir / "tokenizer"
        if not folder.is_dir():
            captioner = self.captioner(0)
            captions = [
                captioner.caption(subject, BACKGROUNDS[index % len(BACKGROUNDS)])
                for subject in self.subjects
                for index in range(CAPTIONS_PER_SUBJECT)
            ]
            train_tokenizer(captions).save_pretrained(folder)
        return CLIPTokenizer.from_pretrained(folder)

    def vae(self) -> AutoencoderKL:
        """The autoencoder, with the fine-tuned decoder if there is one, and its scaling factor."""
        vae = build_vae()
        state = load_checkpoint(self.run_dir, "decoder") or load_checkpoint(self.run_dir, "vae")
        if state:
            vae.load_state_dict(state["model"])
            vae.register_to_config(scaling_factor=self._scaling_factor(vae))
        return vae.eval()

    def _scaling_factor(self, vae: AutoencoderKL) -> float:
        """Measured once: the encoder never changes after its stage."""
        path = self.run_dir / "vae" / "scaling_factor.json"
        if not path.is_file():
            path.write_text(json.dumps(round(measure_scaling_factor(vae, self.pictures), 5)))
        return json.loads(path.read_text())

    def text_encoder(self) -> CLIPTextModel:
        encoder = build_text_encoder(self.tokenizer())
        if state := load_checkpoint(self.run_dir, "text"):
            encoder.load_state_dict(state["model"])
        return encoder.eval()

    def unet(self) -> UNet2DConditionModel:
        """The averaged UNet."""
        unet = build_unet()
        if state := load_checkpoint(self.run_dir, "unet"):
            with torch.no_grad():
                for target, source in zip(unet.parameters(), state["ema"], strict=True):
                    target.copy_(source)
        return unet.eval()

    def safety_checker(self) -> StableDiffusionSafetyChecker:
        checker = build_safety_checker()
        if state := load_checkpoint(self.run_dir, "safety"):
            checker.load_state_dict(state["model"])
        return checker.eval()

    def export(self, unet: UNet2DConditionModel | None = None) -> None:
        """Write the pipeline as far as it is trained; `unet` stands in for the checkpoint's."""
        export_pipeline(
            self.output / "base_model",
            self.vae(),
            self.text_encoder(),
            self.tokenizer(),
            self.unet() if unet is None else unet,
            self.safety_checker(),
        )


def adopt(shop: Workshop) -> None:
    """Begin a run with the exported weights, so that `unet` and `decoder` train on from them."""
    if (shop.run_dir / "unet").exists():
        raise SystemExit(f"{shop.run_dir} holds a run already; give another --run-dir")
    folder = shop.output / "base_model"
    pipeline = load_pipeline(folder)
    shutil.copytree(folder / "tokenizer", shop.run_dir / "tokenizer")
    unet = pipeline.unet.state_dict()
    average = [parameter.detach() for parameter in pipeline.unet.parameters()]
    # Its optimizer's state was not exported: the schedule begins anew, and with it the warm-up.
    Run(shop.run_dir, "unet").save({"model": unet, "ema": average, "step": 0})
    for stage, part in {"vae": pipeline.vae, "text": pipeline.text_encoder, "safety": pipeline.safety_checker}.items():
        Run(shop.run_dir, stage).save({"model": part.state_dict()})
    (shop.run_dir / "vae" / "scaling_factor.json").write_text(json.dumps(pipeline.vae.config.scaling_factor))


def data(shop: Workshop) -> None:
    """Fetch the packages and check that every subject has a picture."""
    shop.assets.fetch()
    print(f"{len(shop.pictures)} subjects, {len(shop.assets.all_picture_paths())} pictures in all")
    for style in STYLES:
        print(f"{len(shop.style_pictures(style))} of the subjects in the style {style.name}")


def vae(shop: Workshop) -> None:
    """Train the autoencoder on all pictures, not only the subjects'."""
    pictures = load_pictures(shop.assets.all_picture_paths())
    train_vae(Run(shop.run_dir, "vae"), pictures, shop.iterations.vae)


def text(shop: Workshop) -> None:
    """Pretrain the text encoder."""
    pretrain_text_encoder(
        Run(shop.run_dir, "text"),
        build_text_encoder(shop.tokenizer()),
        shop.tokenizer(),
        shop.subjects,
        shop.pictures,
        shop.captioner(1),
        shop.iterations.text,
    )


def unet(shop: Workshop) -> None:
    """Train the UNet on cached latents; export and draw a sample sheet every so often."""
    build_cache(shop.vae(), shop.pictures, shop.run_dir / "latents.pt", WORKERS)
    size = sum(parameter.numel() for parameter in build_unet().parameters())
    run_workers(_unet_worker, WORKERS, shop, Exchange(WORKERS, size))


def _unet_worker(rank: int, shop: Workshop, exchange: Exchange) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    unet = build_unet()
    run = Run(shop.run_dir, "unet", primary=rank == 0)

    def on_checkpoint(averaged: UNet2DConditionModel, step: int) -> None:
        if step % shop.export_every == 0 or step == shop.iterations.unet:
            shop.export(averaged)
            pipeline = load_pipeline(shop.output / "base_model")
            pictures = generate(pipeline, SAMPLE_PROMPTS, [1] * len(SAMPLE_PROMPTS))
            make_sheet(pictures, SAMPLE_PROMPTS, columns=8).save(run.folder / f"sample-{step:06}.png")

    train_unet(
        run,
        rank,
        exchange,
        unet,
        shop.text_encoder(),
        shop.tokenizer(),
        shop.subjects,
        build_cache(shop.vae(), shop.pictures, shop.run_dir / "latents.pt", WORKERS),
        shop.captioner(2),
        shop.iterations.unet,
        on_checkpoint,
    )


def decoder(shop: Workshop) -> None:
    """Fine-tune the decoder on the subjects."""
    size = sum(parameter.numel() for parameter in decoder_parameters(build_vae()))
    run_workers(_decoder_worker, WORKERS, shop, Exchange(WORKERS, size))


def _decoder_worker(rank: int, shop: Workshop, exchange: Exchange) -> None:
    torch.set_num_threads(1)
    autoencoder = shop.vae()
    train_decoder(
        Run(shop.run_dir, "decoder", primary=rank == 0),
        rank,
        exchange,
        autoencoder,
        shop.pictures,
        build_cache(autoencoder, shop.pictures, shop.run_dir / "latents.pt", WORKERS),
        shop.iterations.decoder,
    )


def safety(shop: Workshop) -> None:
    """Train the safety checker."""
    train_safety_checker(Run(shop.run_dir, "safety"), shop.pictures, shop.iterations.safety)


def export(shop: Workshop) -> None:
    """Write the pipeline as far as it is trained."""
    shop.export()


def evaluation(shop: Workshop) -> None:
    """Measure the exported pipeline; write `evaluation.json`, `samples.png` and the sheet of all subjects."""
    figures, sheet = evaluate(shop.output / "base_model", shop.subjects, shop.pictures, WORKERS, shop.guidance)
    write_figures(figures, shop.output / "evaluation.json")
    drawn = generate_all(shop.output / "base_model", SAMPLE_PROMPTS, [1] * len(SAMPLE_PROMPTS), shop.guidance, WORKERS)
    pictures = [to_image(picture) for picture in drawn]
    make_sheet(pictures, SAMPLE_PROMPTS, columns=8).quantize(192).save(shop.output / "samples.png", optimize=True)
    sheet.save(shop.run_dir / "evaluation.png")
    print(json.dumps(figures, indent=2, ensure_ascii=False))


def lora(shop: Workshop, style: Style) -> None:
    """Train the LoRA of a style on the exported pipeline; export it at every checkpoint, draw a sheet at the end."""
    size = sum(parameter.numel() for parameter in add_lora(build_unet()))
    run_workers(_lora_worker, WORKERS, shop, style, _style_latents(shop, style), Exchange(WORKERS, size))


def _style_latents(shop: Workshop, style: Style) -> LatentCache:
    """Latents of the style's pictures, encoded once for each run."""
    path = shop.run_dir / style.stage / "latents.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    on_black = shop.style_pictures(style, WHITE) if style.one_ink else None
    vae = load_pipeline(shop.output / "base_model").vae
    return build_cache(vae, shop.style_pictures(style), path, WORKERS, on_black)


def _lora_worker(rank: int, shop: Workshop, style: Style, latents: LatentCache, exchange: Exchange) -> None:
    torch.set_num_threads(1)
    run = Run(shop.run_dir, style.stage, primary=rank == 0)
    file = shop.output / "lora" / f"{style.name}.safetensors"

    def on_checkpoint(layers: Layers, step: int) -> None:
        write_lora(file, layers, RANK, style.alpha, style.layout)
        if step == style.iterations:
            pipeline = load_pipeline(shop.output / "base_model")
            pipeline.load_lora_weights(file)
            pictures = generate(pipeline, SAMPLE_PROMPTS, [1] * len(SAMPLE_PROMPTS), shop.guidance)
            make_sheet(pictures, SAMPLE_PROMPTS, columns=8).save(run.folder / "sample.png")

    train_lora(
        run,
        rank,
        exchange,
        load_pipeline(shop.output / "base_model"),
        shop.subjects,
        latents,
        shop.captioner(3),
        style.iterations,
        on_checkpoint,
    )


def controlnet(shop: Workshop, control: Control) -> None:
    """Train a ControlNet on the exported pipeline; export it at every checkpoint, draw a sheet every so often."""
    pipeline = load_pipeline(shop.output / "base_model")
    run = Run(shop.run_dir, control.stage)
    subjects, pictures = shop.subjects, shop.pictures
    cache = build_view_cache(pipeline, subjects, pictures, shop.captioner(4), shop.run_dir / "views.pt", WORKERS)
    views = draw_views(held_out(len(subjects))[:SAMPLES], 1, seed=1)
    shown = views.show(pictures)
    prompts = [
        evaluation_caption(subjects[which], BACKGROUNDS[where])
        for which, where in zip(views.subjects.tolist(), views.backgrounds.tolist(), strict=True)
    ]

    def on_checkpoint(trained: ControlNetModel, step: int) -> None:
        write_controlnet(shop.output / control.folder, trained)
        if step % SAMPLE_EVERY == 0 or step == control.iterations:
            painted = control.paint(shown)
            drawer = controlled_pipeline(pipeline, trained)
            drawn = generate_controlled(drawer, prompts, painted, range(SAMPLES), shop.guidance)
            rows = [to_image(picture) for picture in (*shown, *(painted * 2.0 - 1.0), *drawn)]
            make_sheet(rows, columns=SAMPLES).save(run.folder / f"sample-{step:06}.png")

    train_controlnet(run, pipeline.unet, cache, pictures, control, on_checkpoint)


def evidence(shop: Workshop) -> None:
    """Show what the server makes of the exported pipeline and its LoRAs; write `evidence.json` and `functions.png`."""
    # Only here: no other stage needs the server's engine.
    from training.emoji.evidence import World, gather_evidence

    styles = {style.name: shop.style_pictures(style) for style in STYLES}
    figures, sheet = gather_evidence(shop.output, World(shop.subjects, shop.pictures, styles), shop.guidance)
    write_figures(figures, shop.output / "evidence.json")
    sheet.quantize(192).save(shop.output / "functions.png", optimize=True)
    print(json.dumps(figures, indent=2, ensure_ascii=False))


def controlnet_evidence(shop: Workshop) -> None:
    """Show how well the ControlNets are followed; write `controlnets.json` and `controlnets.png`."""
    figures, sheet = gather_controlnet_evidence(shop.output, shop.subjects, shop.pictures, shop.guidance)
    write_figures(figures, shop.output / "controlnets.json")
    sheet.quantize(192).save(shop.output / "controlnets.png", optimize=True)
    print(json.dumps(figures, indent=2, ensure_ascii=False))


TRAINING: dict[str, Callable[[Workshop], None]] = {
    "data": data,
    "vae": vae,
    "text": text,
    "unet": unet,
    "decoder": decoder,
    "safety": safety,
    "export": export,
    "evaluate": evaluation,
    **{style.stage: partial(lora, style=style) for style in STYLES},
    **{control.stage: partial(controlnet, control=control) for control in CONTROLS},
    "evidence": evidence,
    "evidence-controlnets": controlnet_evidence,
}
"""What `all` runs, in this order."""

STAGES = {"adopt": adopt, **TRAINING}
