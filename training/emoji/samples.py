"""The prompts whose pictures show at a glance how well the model draws."""

from collections.abc import Sequence

from PIL import Image

from training.emoji.sheet import make_sheet

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
SAMPLE_SEEDS = (1,) * len(SAMPLE_PROMPTS)


def sample_sheet(pictures: Sequence[Image.Image]) -> Image.Image:
    """Return the pictures of the prompts over their captions."""
    return make_sheet(pictures, SAMPLE_PROMPTS, columns=8)
