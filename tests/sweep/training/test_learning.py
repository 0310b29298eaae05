"""Every architecture can learn, from its first weights, with a shipped recipe's optimizer and learning rate."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import vgg

from models import architectures
from models.architectures import ARCHITECTURES
from sweep.grid.expand import expand
from sweep.grid.load import load_grid
from sweep.training.run import Run

pytestmark = pytest.mark.slow

# Recipe, pixels, images a step, steps at most: small images where the architecture takes them.
CASES = {
    "simplified": ("article", 32, 16, 20),
    "simplified_mini": ("article", 56, 16, 40),
    "inception_v1": ("article", 32, 16, 20),
    "resnet50": ("article", 32, 16, 20),
    "vgg19": ("small", 32, 32, 60),  # with the article's, of a quarter of the rate an image, twice as many steps
    "alexnet": ("small", 63, 32, 80),
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The same bits on every machine of a kind, and no waiting for threads where it is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """VGG-19 with few channels but for its last conv, and smaller hidden layers: 17 million weights instead of 140.

    Depth and first weights, which decide whether a signal comes through, are its own.
    """
    widths: list[int | str] = [width if width == "M" else min(int(width), 32) for width in vgg.cfgs["E"]]
    widths[-2] = 128
    monkeypatch.setitem(vgg.cfgs, "E", widths)
    initialise = nn.Linear.reset_parameters

    def initialise_unless_large(layer: nn.Linear) -> None:
        if layer.weight.numel() < 10**7:  # torchvision's own hidden layers, whose place ours take
            initialise(layer)

    monkeypatch.setattr(nn.Linear, "reset_parameters", initialise_unless_large)


def two_kinds(images: int, size: int) -> tuple[Tensor, Tensor]:
    """Coarse patterns of black and white fields, one for each of two classes, and a little noise."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(images) % 2
    patterns = 3 * torch.randn(2, 3, 4, 4, generator=generator).sign()  # 3 is white, as images are normalised
    noise = 0.1 * torch.randn(images, 3, size, size, generator=generator)
    return nn.functional.interpolate(patterns, size=size)[labels] + noise, labels


def losses(run: Run, batch: tuple[Tensor, Tensor], lr: float, steps: int) -> list[float]:
    """The loss of each step, until it is a tenth of the first."""
    found: list[float] = []
    while len(found) < steps and (not found or found[-1] > found[0] / 10):
        run.start_epoch()
        run.learn([batch], len(batch[0]), lr)
        found.append(float(run.epoch_row(lr)["train_loss"] or 0))
    return found


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_loss_of_a_small_batch_falls_to_a_tenth(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, size, images, steps = CASES[architecture]
    monkeypatch.setattr(architectures, "HIDDEN", 2048 if architecture == "vgg19" else 256)
    settings = [f"architectures=[{architecture}]", "interventions=[baseline]", f"recipe={recipe}", "seeds=[1]"]
    settings += [f"data={{name: scenes, image_size: {size}}}", "recipe.precision=float32"]
    spec = expand(load_grid("demo", settings)).plans[0].spec
    spec = spec.model_copy(update={"data": spec.data.model_copy(update={"num_classes": 2})})
    lr = spec.recipe.lr * images / spec.recipe.batch_size[-1].size  # the linear rule: Goyal et al. 2017
    found = losses(Run(spec), two_kinds(images, size), lr, steps)
    assert found[0] < 2
    assert found[-1] <= found[0] / 10
