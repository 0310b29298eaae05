"""Synthetic scenes on which banding appears within a minute on a CPU.

Three vertical zones, one textured disc in each; the class is the ordered triple of textures. Discs stand near the
horizontal centre, as subjects do in photographs, so that a network may read positions instead of pooling evidence.
Clutter near the left and right borders carries meaningless textures.

Source: ours; the measurements behind each choice are in docs/decisions.md.
Axis letters: `n` images, `h w` image rows and columns.
"""

import itertools
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field

from sweep.data.arrays import Arrays, Batch
from sweep.data.augment import Flipped, mirror

TEXTURES = ("vertical", "rising", "falling")
ZONES = 3
TRIPLES = list(itertools.product(range(len(TEXTURES)), repeat=ZONES))
SETS = sorted({tuple(sorted(triple)) for triple in TRIPLES})

# Direction in which each texture's brightness changes, as (dy, dx) of unit length.
_DIRECTIONS = np.array([[0.0, 1.0], [0.5**0.5, 0.5**0.5], [-(0.5**0.5), 0.5**0.5]], dtype=np.float32)
_MIRRORED = np.array([0, 2, 1])  # either flip turns rising stripes into falling ones
_CLUTTER = 2


class ScenesOptions(Flipped):
    """The three settings of the scenes, and the number of images.

    `position`: `centred` discs lie within 5 pixels of the vertical axis, `scattered` ones anywhere.
    `zones`: with `ordered` ones the class is the triple of textures from top to bottom (27 classes), with
    `shuffled` ones their unordered set (10 classes), which makes the vertical direction meaningless.
    `noise`: standard deviation of the pixel noise added to each training and validation image (contrast is about 1).
    """

    position: Literal["centred", "scattered"] = "centred"
    zones: Literal["ordered", "shuffled"] = "ordered"
    noise: float = Field(0.35, ge=0, le=5)
    train_images: int = Field(5000, ge=1)
    val_images: int = Field(1000, ge=1)


def make_scenes(options: ScenesOptions, image_size: int, seed: int) -> Arrays:
    """Draw the training and validation images; the same arguments give the same bytes."""
    train_seed, val_seed = np.random.SeedSequence(seed).spawn(2)
    train_images, train_triples = _draw_all(options, image_size, options.train_images, train_seed)
    val_images, val_triples = _draw_all(options, image_size, options.val_images, val_seed)
    return Arrays(
        train_images=train_images,
        train_labels=_labels(options, train_triples),
        val_images=val_images,
        val_labels=_labels(options, val_triples),
        class_names=["-".join(TEXTURES[t] for t in triple) for triple in scene_classes(options)],
    )


def flip_scenes(options: ScenesOptions, batch: Batch, generator: torch.Generator) -> Batch:
    """Mirror images at random, and their labels with them: rising stripes become falling ones, the top the bottom."""
    images, labels = batch
    images, flipped = mirror(images, options.flip, generator)
    mirrored = torch.from_numpy(_mirrored_classes(options)).to(labels.device)
    return images, torch.where(flipped, mirrored[labels], labels)


def scene_classes(options: ScenesOptions) -> list[tuple[int, ...]]:
    """The classes as tuples of texture numbers, from top to bottom (or sorted, where zones are shuffled)."""
    return TRIPLES if options.zones == "ordered" else SETS


def _labels(options: ScenesOptions, triples: np.ndarray) -> np.ndarray:
    if options.zones == "shuffled":
        triples = np.sort(triples, axis=1)
    index = {triple: label for label, triple in enumerate(scene_classes(options))}
    return np.array([index[tuple(triple)] for triple in triples.tolist()], dtype=np.int64)


def _mirrored_classes(options: ScenesOptions) -> np.ndarray:
    triples = _MIRRORED[np.array(scene_classes(options))]
    return _labels(options, triples[:, ::-1] if options.flip == "top_bottom" else triples)


def _draw_all(
    options: ScenesOptions, image_size: int, count: int, seed: np.random.SeedSequence, chunk: int = 250
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    triples = rng.integers(len(TEXTURES), size=(count, ZONES))
    images = np.empty((count, 3, image_size, image_size), dtype=np.uint8)
    for start in range(0, count, chunk):
        part = slice(start, min(start + chunk, count))
        images[part] = _draw(options, image_size, triples[part], rng)
    return images, triples


def _draw(options: ScenesOptions, image_size: int, triples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One chunk of images as uint8[n, 3, h, w]; grey 128 is zero and a contrast of 1 spans 42 grey levels."""
    n = len(triples)
    unit = image_size / 56  # all lengths below are for images of 56 pixels
    scene = np.zeros((n, 3, image_size, image_size), dtype=np.float32)
    for _ in range(_CLUTTER):
        side = rng.integers(2, size=n)
        x = np.where(side, 1 - rng.uniform(0.05, 0.18, n), rng.uniform(0.05, 0.18, n)) * image_size
        y = rng.uniform(0.1, 0.9, n) * image_size
        _paint(scene, rng.integers(len(TEXTURES), size=n), y, x, unit, rng)
    zone = image_size / ZONES
    for index in range(ZONES):
        y = (index + 0.5 + rng.uniform(-0.15, 0.15, n)) * zone
        if options.position == "centred":
            x = image_size / 2 + rng.uniform(-5, 5, n) * unit
        else:
            x = rng.uniform(8 * unit, image_size - 8 * unit, n)
        _paint(scene, triples[:, index], y, x, unit, rng)
    scene += options.noise * rng.standard_normal(scene.shape, dtype=np.float32)
    return np.clip(np.rint(scene * 42 + 128), 0, 255).astype(np.uint8)


def _paint(
    scene: Float[np.ndarray, "n 3 h w"],
    textures: np.ndarray,
    y: np.ndarray,
    x: np.ndarray,
    unit: float,
    rng: np.random.Generator,
) -> None:
    """Paint one disc of the given texture over each image, with random radius, phase, frequency, colour, contrast."""
    n, size = len(scene), scene.shape[-1]
    radius = rng.uniform(6, 8, n) * unit
    period = rng.uniform(3.0, 5.0, n) * unit
    phase = rng.uniform(0, 2 * np.pi, n)
    colour = rng.uniform(0.3, 1, (n, 3)).astype(np.float32)
    contrast = rng.uniform(0.6, 1.4, n)
    steps = np.arange(size, dtype=np.float32)
    dy = steps[None, :, None] - y[:, None, None].astype(np.float32)
    dx = steps[None, None, :] - x[:, None, None].astype(np.float32)
    direction = _DIRECTIONS[textures]
    along = dy * direction[:, 0, None, None] + dx * direction[:, 1, None, None]
    wave = np.sin(along * (2 * np.pi / period)[:, None, None].astype(np.float32) + phase[:, None, None])
    inside = np.clip(radius[:, None, None] - np.hypot(dy, dx) + 0.5, 0, 1).astype(np.float32)
    painted = (wave * contrast[:, None, None]).astype(np.float32)[:, None] * colour[:, :, None, None]
    scene += inside[:, None] * (painted - scene)
