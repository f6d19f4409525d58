"""What a masked autoencoder makes of images it was not trained on."""

import numpy as np
import pandas as pd
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from ssl_core.analysis.plots import PAGE, as_text, axes, plot_pictures
from ssl_core.analysis.plots_study import source
from ssl_core.augment import Augment

COLUMNS = ("original", "masked", "reconstruction", "pasted")
BATCH = 256
WANG = {"data_range": 1, "channel_axis": 0, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}


@torch.inference_mode()
def reconstructions(method, images, seed=0):
    """The panel of every image and its quality over the removed pixels, against the fill that it has to beat.

    images: (N, C, S, S) uint8, not seen in training → (dict of arrays (N, 3, S, S), DataFrame with a row per image:
    psnr and ssim of the removed pixels, psnr_floor and ssim_floor of the fill there; psnr_pasted, ssim_pasted,
    psnr_reconstruction and ssim_reconstruction of whole images). The masks are a function of the seed.
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
        for shown in ("pasted", "reconstruction"):
            found[f"psnr_{shown}"] = psnr(x.cpu().numpy(), panel[shown].cpu().numpy())
            found[f"ssim_{shown}"] = ssim(x.cpu().numpy(), panel[shown].cpu().numpy())
        panels.append({name: tensor.cpu().numpy() for name, tensor in panel.items()})
        quality.append(pd.DataFrame(found))
    whole = {name: np.concatenate([panel[name] for panel in panels]) for name in panels[0]}
    return whole, pd.concat(quality, ignore_index=True)


def psnr(x, y):
    """Peak signal-to-noise ratio of each pair of images in dB, (B,), infinite where they are equal.

    x, y: (B, C, H, W) in [0, 1].
    """
    with np.errstate(divide="ignore"):
        return np.array([peak_signal_noise_ratio(a, b, data_range=1) for a, b in zip(x, y, strict=True)])


def ssim(x, y):
    """Structural similarity of each pair of images, (B,): the mean over pixels and channels, as Wang et al. (2004).

    x, y: (B, C, H, W) in [0, 1], at least 11 × 11 pixels, the size of the Gaussian window; pixels that a whole window
    surrounds are counted.
    """
    return np.array([structural_similarity(a, b, **WANG) for a, b in zip(x, y, strict=True)])


def masked_quality(original, filled, removed):
    """PSNR in dB and SSIM over the removed pixels of each image: two arrays (B,).

    original, filled: (B, 3, S, S) in [0, 1]; removed: (B, 1, S, S). SSIM's windows also see what was visible.
    """
    noise, similar = [], []
    for a, b, gone in zip(*(t.cpu().numpy() for t in (original, filled, removed[:, 0] > 0))):
        noise.append(psnr(a[None, :, gone], b[None, :, gone])[0])
        similar.append(structural_similarity(a, b, **WANG, full=True)[1][:, gone].mean())
    return np.array(noise), np.array(similar)


def pictured(panel, quality, rows=4):
    """What the figure is drawn from: the quality of every image and, of the first few, the pictures as text."""
    return quality.assign(**{name: pd.Series([as_text(image) for image in panel[name][:rows]]) for name in COLUMNS})


def plot_reconstructions(frame, ax=None):
    """Images in rows: as they are, what the encoder saw, what was made of it, and both together, whose quality over the
    removed pixels stands beside it. frame: of `pictured`."""
    shown = frame.dropna(subset="original")
    ax = axes(ax, PAGE * 0.65, PAGE * 0.14 * len(shown) + 0.2)
    said = [f"{row.psnr:.1f} dB\nSSIM {row.ssim:.2f}" for row in shown.itertuples()]
    plot_pictures(shown[list(COLUMNS)].to_numpy(), ax, COLUMNS, said).yaxis.tick_right()
    return ax


def caption_reconstructions(frame, table, norm_pix):
    return ("Test images, what is left of them, what the autoencoder makes of it, and its patches pasted in where they "
            "were removed; at the right PSNR and SSIM of the removed pixels. "
            f"{quality_sentence(frame, norm_pix)} {source(table)}")


def quality_sentence(quality, norm_pix):
    """Mean quality over removed pixels, beside the fill, and over whole images.

    With norm_pix the fill knows the mean of each patch, and a reconstruction its mean and spread.
    """
    fill = ("each removed patch filled with its own mean colour" if norm_pix else
            "removed patches filled with the mean colour of the visible ones")
    mean = quality.replace(np.inf, np.nan).mean(numeric_only=True)
    return (f"Over the removed pixels of {len(quality):,} images not trained on: {mean.psnr:.1f} dB and SSIM "
            f"{mean.ssim:.2f}, against {mean.psnr_floor:.1f} dB and {mean.ssim_floor:.2f} with {fill}. "
            f"Over whole images: {mean.psnr_pasted:.1f} dB and SSIM {mean.ssim_pasted:.2f} for the pasted ones, "
            f"{mean.psnr_reconstruction:.1f} dB and {mean.ssim_reconstruction:.2f} for the reconstruction alone.")
