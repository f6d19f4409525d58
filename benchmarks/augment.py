"""Two views of a batch by SimCLR's recipe with blur: ours, kornia's per-image augmentations, one PIL process.

    python -m benchmarks.augment

All start from the same uint8 store in memory and end with float32 batches; the three are timed in turn, round after
round, so that a busy machine slows all of them, and medians are compared.
"""

import torch
from torchvision import transforms
from torchvision.transforms.functional import to_pil_image

from benchmarks.timing import medians
from ssl_core.augment import RECIPES, Augment

BATCH = {32: 256, 96: 128, 224: 32}   # images per batch at each size in pixels
RECIPE = RECIPES["simclr"]


def kernel_size(size):
    return max(1, size // 10 // 2) * 2 + 1


def ours(images, size):
    augment = Augment("simclr", size)
    return lambda: augment(images)


def kornia(images, size):
    """kornia's batched API, parameters drawn per image; only the order of ColorJitter is drawn per batch."""
    import kornia.augmentation as K

    view = torch.nn.Sequential(
        K.RandomResizedCrop((size, size), scale=RECIPE["scale"], same_on_batch=False),
        K.RandomHorizontalFlip(p=RECIPE["flip"], same_on_batch=False),
        K.ColorJitter(*RECIPE["jitter"], p=RECIPE["jitter_p"], same_on_batch=False),
        K.RandomGrayscale(p=RECIPE["gray_p"], same_on_batch=False),
        K.RandomGaussianBlur((kernel_size(size),) * 2, (0.1, 2.0), p=RECIPE["blur_p"], same_on_batch=False))
    return torch.no_grad()(lambda: view(images.float() / 255))


def pil(images, size):
    """torchvision on decoded PIL images, one after another, as in a loader without workers."""
    view = transforms.Compose([
        transforms.RandomResizedCrop(size, scale=RECIPE["scale"]),
        transforms.RandomHorizontalFlip(RECIPE["flip"]),
        transforms.RandomApply([transforms.ColorJitter(*RECIPE["jitter"])], RECIPE["jitter_p"]),
        transforms.RandomGrayscale(RECIPE["gray_p"]),
        transforms.RandomApply([transforms.GaussianBlur(kernel_size(size), (0.1, 2.0))], RECIPE["blur_p"]),
        transforms.ToTensor()])
    decoded = [to_pil_image(image) for image in images]
    return lambda: torch.stack([view(image) for image in decoded])


def rows(rounds=7):
    """(name, ours, peer, ratio, unit) for each size and peer; views per second, ratio > 1: we are faster."""
    table = []
    for size, batch in BATCH.items():
        smooth = torch.rand(batch, 3, 8, 8)
        images = torch.nn.functional.interpolate(smooth, (size, size), mode="bilinear").mul(255).byte()
        views = {"ours": ours(images, size), "kornia": kornia(images, size), "one PIL process": pil(images, size)}
        seconds = medians({name: twice(view) for name, view in views.items()}, rounds)
        rate = {name: 2 * batch / taken for name, taken in seconds.items()}
        table += [(f"two SimCLR views with blur, {size} px, against {peer}", rate["ours"], rate[peer],
                   rate["ours"] / rate[peer], "views/s") for peer in ("kornia", "one PIL process")]
    return table


def twice(view):
    return lambda: (view(), view())


if __name__ == "__main__":
    for name, mine, peer, ratio, unit in rows():
        print(f"{name:60} {mine:8.0f} {peer:8.0f} {unit}  {ratio:5.1f} x")
