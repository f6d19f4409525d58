"""What a masked autoencoder makes of images it was not trained on."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from ssl_core.analysis.plots import PAGE, show_image
from ssl_core.augment import Augment

COLUMNS = ("original", "masked", "reconstruction", "pasted")
BATCH = 256


@torch.inference_mode()
def reconstructions(method, images, seed=0):
    """The panel of every image and its quality over the removed pixels, against the fill that it has to beat.

    images: (N, C, S, S) uint8, not seen in training → (dict of arrays (N, 3, S, S), DataFrame with a row per image:
    psnr and ssim of the reconstruction, psnr_floor and ssim_floor). The masks are a function of the seed.
    """
    device, resize = next(method.parameters()).device, Augment("none", method.encoder.spec["size"])
    generator, panels, quality = torch.Generator().manual_seed(seed), [], []
    method.eval()
    for start in range(0, len(images), BATCH):
        x = resize(torch.from_numpy(np.array(images[start:start + BATCH]))).to(device)
        noise = torch.rand(len(x), len(method.positions), generator=generator).to(device)
        panel = method.reconstruct(x, noise)
        found = {}
        for name, shown in (("", "pasted"), ("_floor", "floor")):
            found[f"psnr{name}"], found[f"ssim{name}"] = masked_quality(x, panel[shown], panel["removed"])
        panels.append({name: tensor.cpu().numpy() for name, tensor in panel.items()})
        quality.append(pd.DataFrame(found))
    whole = {name: np.concatenate([panel[name] for panel in panels]) for name in panels[0]}
    return whole, pd.concat(quality, ignore_index=True)


def masked_quality(original, filled, removed):
    """PSNR in dB and SSIM (Wang et al. 2004) over the removed pixels of each image: two arrays (B,).

    original, filled: (B, 3, S, S) in [0, 1]; removed: (B, 1, S, S). SSIM's windows also see what was visible.
    """
    psnr, ssim = [], []
    for a, b, gone in zip(*(t.cpu().numpy() for t in (original, filled, removed[:, 0] > 0))):
        _, similarity = structural_similarity(a, b, data_range=1, channel_axis=0, full=True)
        with np.errstate(divide="ignore"):  # infinite when nothing is wrong
            psnr.append(peak_signal_noise_ratio(a[:, gone], b[:, gone], data_range=1))
        ssim.append(similarity[:, gone].mean())
    return np.array(psnr), np.array(ssim)


def plot_reconstructions(panel, quality, rows=4):
    """Images in rows: as they are, what the encoder saw, what was made of it, and both together with their PSNR."""
    fig, grid = plt.subplots(rows, len(COLUMNS), figsize=(PAGE * 0.55, PAGE * 0.55 * rows / len(COLUMNS) + 0.2),
                             squeeze=False)
    for i, row in enumerate(grid):
        for ax, name in zip(row, COLUMNS):
            show_image(ax, panel[name][i])
        row[-1].text(1.05, 0.5, f"{quality.psnr[i]:.1f} dB\nSSIM {quality.ssim[i]:.2f}", va="center", fontsize=7,
                     transform=row[-1].transAxes)
    for ax, name in zip(grid[0], COLUMNS):
        ax.set_title(name, loc="center", fontsize=7)
    return grid


def quality_sentence(quality, norm_pix):
    """Mean quality over removed pixels, beside the fill; with norm_pix that fill knows the mean of each patch, too."""
    fill = ("each removed patch filled with its own mean colour" if norm_pix else
            "removed patches filled with the mean colour of the visible ones")
    mean = quality.replace(np.inf, np.nan).mean()
    return (f"Over the removed pixels of {len(quality):,} images not trained on: {mean.psnr:.1f} dB and SSIM "
            f"{mean.ssim:.2f}, against {mean.psnr_floor:.1f} dB and {mean.ssim_floor:.2f} with {fill}.")
