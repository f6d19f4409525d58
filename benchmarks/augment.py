"""Two views of a batch by SimCLR's recipe with blur: ours, kornia's per-image augmentations, one PIL process.

    python -m benchmarks.augment

All start from the same uint8 store in memory and end with float32 batches; the three are timed in turn, round after
round, so that a busy machine slows all of them, and medians are compared.
"""

import statistics
import time

import torch
from torchvision import transforms
from torchvision.transforms.functional import to_pil_image

from ssl_core.augment import RECIPES, Augment

BATCH = {32: 256, 96: 128, 224: 64}   # images per batch at each size in pixels
RECIPE = RECIPES["simclr"]


def kernel_size(size):
    return max(1, size // 10 // 2) * 2 + 1


def kornia_views(size):
    """kornia's batched API, a draw per image; its ColorJitter draws the order once per batch."""
    import kornia.augmentation as K

    views = torch.nn.Sequential(
        K.RandomResizedCrop((size, size), scale=RECIPE["scale"], same_on_batch=False),
        K.RandomHorizontalFlip(p=RECIPE["flip"], same_on_batch=False),
        K.ColorJitter(*RECIPE["jitter"], p=RECIPE["jitter_p"], same_on_batch=False),
        K.RandomGrayscale(p=RECIPE["gray_p"], same_on_batch=False),
        K.RandomGaussianBlur((kernel_size(size),) * 2, (0.1, 2.0), p=RECIPE["blur_p"], same_on_batch=False))
    return torch.no_grad()(lambda images: views(images.float() / 255))


def pil_views(size):
    """torchvision on PIL images, one after another, as in a loader without workers."""
    view = transforms.Compose([
        transforms.RandomResizedCrop(size, scale=RECIPE["scale"]),
        transforms.RandomHorizontalFlip(RECIPE["flip"]),
        transforms.RandomApply([transforms.ColorJitter(*RECIPE["jitter"])], RECIPE["jitter_p"]),
        transforms.RandomGrayscale(RECIPE["gray_p"]),
        transforms.RandomApply([transforms.GaussianBlur(kernel_size(size), (0.1, 2.0))], RECIPE["blur_p"]),
        transforms.ToTensor()])
    return lambda images: torch.stack([view(to_pil_image(image)) for image in images])


def seconds(functions, images, rounds):
    """Median seconds for two views of the batch by each function, timed in turn."""
    times = {name: [] for name in functions}
    for turn in range(rounds + 1):   # the first round warms up
        for name, function in functions.items():
            start = time.perf_counter()
            function(images), function(images)
            if turn:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def rows(rounds=5):
    """(name, ours, peer, ratio, unit) for each size and peer; views per second, ratio > 1: we are faster."""
    table = []
    for size, batch in BATCH.items():
        smooth = torch.rand(batch, 3, 8, 8)
        images = torch.nn.functional.interpolate(smooth, (size, size), mode="bilinear").mul(255).byte()
        taken = seconds({"ours": Augment("simclr", size), "kornia": kornia_views(size), "PIL": pil_views(size)},
                        images, rounds)
        rate = {name: 2 * batch / value for name, value in taken.items()}
        table += [(f"augmentation, two views, {size} px, against {peer}", rate["ours"], rate[peer],
                   rate["ours"] / rate[peer], "views/s") for peer in ("kornia", "PIL")]
    return table


if __name__ == "__main__":
    for name, ours, peer, ratio, unit in rows():
        print(f"{name:52} {ours:9.0f} {peer:9.0f} {unit}  {ratio:5.1f} x")
