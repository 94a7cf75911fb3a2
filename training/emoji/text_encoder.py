"""The text encoder: a small CLIPTextModel, pretrained to tell which picture a caption describes.

It regresses the principal components of the subject's picture and the background's colour, and names both, from the
end-of-text state (which CLIP pools) and from the mean of all states. Without this the UNet ignores the prompt.
"""

# mypy: allow-untyped-calls, no-warn-return-any

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional
from tqdm import tqdm
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from training.emoji.backgrounds import BACKGROUNDS, unit_rgb
from training.emoji.captions import Captioner
from training.emoji.run import Run
from training.emoji.schedule import warmup_cosine
from training.emoji.subjects import Subject
from training.emoji.tokenizer import MAX_LENGTH, VOCABULARY_SIZE

WIDTH = 192
COMPONENTS = 96
PEAK_RATE = 1e-3
BATCH = 64
FULL_LENGTH_EVERY = 5
"""Every so many batches keep all 77 tokens; the others are cut after their longest caption, which is much faster."""
HEADS_ALONE = 300
"""An adopted encoder has no heads: batches in which new ones learn to read it, before it learns itself."""
LOG_EVERY = 100


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Return a fresh text encoder: 4 layers of width 192, 2.2 M parameters."""
    config = CLIPTextConfig(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=4,
        num_attention_heads=6,
        max_position_embeddings=MAX_LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    encoder: CLIPTextModel = CLIPTextModel(config)
    # On CPU the gradient of the fused attention is several times slower than that of plain matrix products.
    encoder.set_attn_implementation("eager")
    return encoder


def tokenize(tokenizer: CLIPTokenizer, captions: Sequence[str]) -> torch.Tensor:
    """Token ids [N, 77], padded with the end token as Stable Diffusion does."""
    encoded = tokenizer(
        list(captions), padding="max_length", max_length=MAX_LENGTH, truncation=True, return_tensors="pt"
    )
    return encoded.input_ids


def picture_components(pictures: torch.Tensor, count: int = COMPONENTS) -> torch.Tensor:
    """Return images (uint8 [N, 4, S, S]) as `count` principal components of 32x32 RGBA, [N, count], unit variance."""
    small = functional.adaptive_avg_pool2d(pictures.float() / 255.0, 32).flatten(1)
    centred = small - small.mean(0)
    left, sizes, _ = torch.linalg.svd(centred, full_matrices=False)
    # Damped whitening: small components count, but less than large ones.
    scores = left[:, :count] * sizes[:count].sqrt()
    return scores / scores.std()


class PictureHeads(nn.Module):
    """Heads that pretraining puts on a text state [N, WIDTH]: picture components, colour, subject and background."""

    def __init__(self, subjects: int, components: int) -> None:
        super().__init__()
        self.sizes = (components, 3, subjects, len(BACKGROUNDS))
        self.linear = nn.Linear(WIDTH, sum(self.sizes))

    def forward(self, states: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.linear(states).split(self.sizes, dim=-1)


def pretrain_text_encoder(
    run: Run,
    encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    subjects: Sequence[Subject],
    pictures: torch.Tensor,
    captioner: Captioner,
    iterations: int,
) -> CLIPTextModel:
    """Pretrain on random captions of `subjects`, whose pictures are uint8 [N, 4, S, S] in the same order."""
    components = picture_components(pictures)
    colours = torch.stack([unit_rgb(background) for background in BACKGROUNDS])
    heads = nn.ModuleList(PictureHeads(len(subjects), components.shape[1]) for _ in range(2))
    parameters = [*encoder.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=1e-2, fused=True)
    step = heads_alone = 0
    if state := run.load():
        encoder.load_state_dict(state["model"])
        if "heads" in state:
            heads.load_state_dict(state["heads"])
            optimizer.load_state_dict(state["optimizer"])
            step = state["step"]
        else:
            heads_alone = HEADS_ALONE
    generator = torch.Generator().manual_seed(step)
    encoder.train()
    with tqdm(total=iterations, initial=step, desc="text encoder", mininterval=10) as bar:
        while step < iterations and not run.stopping:
            for group in optimizer.param_groups:
                group["lr"] = warmup_cosine(step, iterations, PEAK_RATE)
            which = torch.randint(len(subjects), (BATCH,), generator=generator)
            where = torch.randint(len(BACKGROUNDS), (BATCH,), generator=generator)
            captions = [
                captioner.caption(subjects[i], BACKGROUNDS[j])
                for i, j in zip(which.tolist(), where.tolist(), strict=True)
            ]
            tokens = tokenize(tokenizer, captions)
            if step % FULL_LENGTH_EVERY:
                tokens = tokens[:, : int((tokens != tokenizer.eos_token_id).sum(1).max()) + 1]
            with torch.autocast("cpu", dtype=torch.bfloat16):
                output = encoder(tokens)
                answers = [heads[0](output.pooler_output), heads[1](output.last_hidden_state.mean(1))]
            loss = torch.zeros(())
            for picture, colour, subject, background in answers:
                loss = loss + functional.mse_loss(picture.float(), components[which])
                loss = loss + functional.mse_loss(colour.float(), colours[where])
                loss = loss + functional.cross_entropy(subject.float(), which) / 2
                loss = loss + functional.cross_entropy(background.float(), where) / 2
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if step < heads_alone:
                for parameter in encoder.parameters():
                    parameter.grad = None
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            step += 1
            bar.update()
            if step % LOG_EVERY == 0 or step == iterations or run.stopping:
                right = float((answers[0][2].argmax(1) == which).float().mean())
                colour_right = float((answers[0][3].argmax(1) == where).float().mean())
                run.log(stage="text", step=step, loss=loss.item(), subject=right, background=colour_right)
                bar.set_postfix(loss=f"{loss.item():.3f}", subject=f"{right:.2f}")
    run.save(
        {
            "model": encoder.state_dict(),
            "heads": heads.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": step,
        }
    )
    return encoder.eval()
