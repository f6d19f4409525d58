"""One image → uint8 (C, S, S): bit depth, colour and geometry."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps


def read_image(path, channels, size, geometry="resize_crop", window=(0.5, 99.5)):
    """Decode a file; more than 8 bit are mapped to 0–255 by DICOM's own window, else between two percentiles."""
    if Path(path).suffix.lower() == ".dcm":
        return fit(Image.fromarray(read_dicom(path, window)), channels, size, geometry)
    with Image.open(path) as image:
        image.load()
        if image.mode in ("I", "F") or image.mode.startswith("I;16"):
            values = np.asarray(image, np.float64)
            image = Image.fromarray(to_bytes(values, *np.percentile(values, window)))
        return fit(ImageOps.exif_transpose(image), channels, size, geometry)


def to_bytes(values, low, high):
    """Values between `low` and `high` → 0–255, what lies outside is clipped; constant images become 0."""
    scaled = (np.asarray(values, np.float64) - low) / max(high - low, 1e-12)
    return (np.clip(scaled, 0, 1) * 255 + 0.5).astype(np.uint8)


def fit(image, channels, size, geometry):
    """A PIL image → uint8 (C, S, S), antialiased.

    resize_crop: short side to S, centre kept; pad: long side to S, black around; squash: both sides to S.
    """
    if image.mode == "P":
        image = image.convert("RGBA")
    image = image.convert("L" if channels == 1 else "RGB")
    square = (size, size)
    if geometry == "resize_crop":
        image = ImageOps.fit(image, square, Image.Resampling.BICUBIC)
    elif geometry == "pad":
        image = ImageOps.pad(image, square, Image.Resampling.BICUBIC)
    else:
        image = image.resize(square, Image.Resampling.BICUBIC)
    array = np.asarray(image)
    return array[None] if channels == 1 else np.ascontiguousarray(array.transpose(2, 0, 1))


def arrange(images, card, size):
    """uint8 arrays (N, H, W[, 3]) → (N, C, S, S) by the card's geometry; size 0 takes them as they are."""
    if images.dtype != np.uint8 or not (images.ndim == 3 or images.ndim == 4 and images.shape[3] in (1, 3)):
        raise ValueError(f"images are {images.dtype} {images.shape}; they must be uint8 (N, H, W) or (N, H, W, 3)")
    images = images[..., None] if images.ndim == 3 else images
    n, height, width, depth = images.shape
    size, channels = size or min(height, width), card.channels or depth
    if (height, width, depth) == (size, size, channels):
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    out = np.empty((n, channels, size, size), np.uint8)
    for i, image in enumerate(images):
        out[i] = fit(Image.fromarray(image[..., 0] if depth == 1 else image), channels, size, card.geometry)
    return out


def read_dicom(path, window):
    """A DICOM image as uint8 (H, W) or (H, W, 3), by its modality and VOI tables or window."""
    try:
        import pydicom
        from pydicom import pixels
    except ImportError:
        raise ImportError(f"{Path(path).name}: DICOM needs pydicom: pip install pydicom") from None
    header = pydicom.dcmread(path)
    values = pixels.pixel_array(header)
    if values.ndim == 3:
        return values if values.dtype == np.uint8 else to_bytes(values, 0, values.max())
    values = pixels.apply_modality_lut(values, header)
    if "VOILUTSequence" in header:
        values = pixels.apply_voi_lut(values, header)
        low, high = 0, 2 ** (header.VOILUTSequence[0].LUTDescriptor[2]) - 1
    elif "WindowWidth" in header:
        centre, width = (np.atleast_1d(header[key].value)[0] for key in ("WindowCenter", "WindowWidth"))
        low, high = float(centre) - float(width) / 2, float(centre) + float(width) / 2
    else:
        low, high = np.percentile(values, window)
    scaled = to_bytes(values, low, high)
    return 255 - scaled if header.PhotometricInterpretation == "MONOCHROME1" else scaled
