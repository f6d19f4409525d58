"""One image → uint8 (C, S, S): bit depth, colour and geometry."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

DICOM = (".dcm", ".dicom")


def read_image(path, channels, size, geometry="resize_crop", window=(0.5, 99.5)):
    """Decode a path, or an open file that has a name; more than 8 bit are mapped to 0–255 by DICOM's own window, else
    between two percentiles."""
    path = Path(path) if isinstance(path, str) else path
    if Path(path.name).suffix.lower() in DICOM:
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
    """A DICOM image as uint8 (H, W) or (H, W, 3): modality LUT or rescale, then VOI LUT or window, else percentiles."""
    try:
        import pydicom
        from pydicom import pixels
    except ImportError:
        raise ImportError(f"{path.name}: DICOM needs pydicom: pip install pydicom") from None
    header = pydicom.dcmread(path)
    if (frames := int(header.get("NumberOfFrames") or 1)) > 1:
        raise ValueError(f"it holds {frames} frames; write those you need as images of their own")
    try:
        values = pixels.pixel_array(header)
    except RuntimeError as error:
        if "missing dependencies" not in str(error):
            raise
        kind = header.file_meta.TransferSyntaxUID.name
        raise ImportError(f"{path.name}: {kind} needs a decoder: pip install 'pylibjpeg[all]'") from None
    if header.PhotometricInterpretation == "PALETTE COLOR":
        values = pixels.apply_color_lut(values, header)
    if values.ndim == 3:
        bits = 8 * values.itemsize if "RedPaletteColorLookupTableData" in header else header.BitsStored
        return to_bytes(values, 0, 2**bits - 1)
    scaled = window_dicom(pixels.apply_modality_lut(values, header), values, header, window)
    return 255 - scaled if header.PhotometricInterpretation == "MONOCHROME1" else scaled


def window_dicom(values, stored, header, window):
    """Grey values, after the modality's table, to uint8 by the VOI table, the first VOI window, or two percentiles of
    what is no padding (`stored` are the values in the file). Windows after DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    if header.get("VOILUTSequence"):
        (entries, first, bits), table = header.VOILUTSequence[0].LUTDescriptor, header.VOILUTSequence[0].LUTData
        if isinstance(table, bytes):
            table = np.frombuffer(table, "<u2" if len(table) >= 2 * (entries or 2**16) else np.uint8)
        place = np.clip(np.rint(values).astype(np.int64) - first, 0, len(table) - 1)
        return to_bytes(np.asarray(table)[place], 0, 2**bits - 1)
    centre, width = (np.atleast_1d(header.get(key) or 0)[0] for key in ("WindowCenter", "WindowWidth"))
    centre, width, shape = float(centre), float(width), header.get("VOILUTFunction") or "LINEAR"
    if shape == "SIGMOID" and width > 0:
        return to_bytes(1 / (1 + np.exp(-4 * (values - centre) / width)), 0, 1)
    if shape == "LINEAR_EXACT" and width > 0:
        return to_bytes(values, centre - width / 2, centre + width / 2)
    if shape == "LINEAR" and width >= 1:
        return to_bytes(values, centre - width / 2, centre + width / 2 - 1)
    padding = header.get("PixelPaddingValue")
    known = values if padding is None else values[stored != padding]
    return to_bytes(values, *np.percentile(known if known.size else values, window))
