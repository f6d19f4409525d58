"""A finished model on images that no study has seen: features of an encoder, scores of a probe or a fine-tuning.

How unlike the training images an image is, is told by deep nearest neighbours: the distance of its features, scaled to
length 1, to the tenth nearest labelled image (Sun, Ming, Zhu, Li: Out-of-Distribution Detection with Deep Nearest
Neighbors, ICML 2022, arXiv 2204.06507), as a percentile of the same distance of the study's test images, whose patients
or slides were held out as well: 95 is further away than 95 of 100 of them.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from ssl_core.config import ConfigError
from ssl_core.data.others import decode, find_images
from ssl_core.encoders import load_encoder
from ssl_core.evaluate.features import extract
from ssl_core.evaluate.probe import apply_probe
from ssl_core.files import atomic_write, replacing
from ssl_core.finished import USE, encoder_file, header_key, open_head, pixels_for, study_features

NEIGHBOUR = 10


def embed(encoder, images, out, device):
    """Write the features of an encoder for the images of a folder or CSV, and say what was done.

    encoder: a file or a run's folder; out: an .npz. Raises ConfigError, or what a file or value raises.
    """
    out = writable(out, ".npz")
    file, record = encoder_file(encoder)
    net = load_encoder(file).to(device)
    pixels, known = pixels_for(record, net.spec["size"])
    folder, card, paths, _, _ = find_images(images, pixels)
    h, problems = features_of(net, folder, card, paths)
    good = [i for i in range(len(paths)) if i not in problems]
    about = {"encoder": net.spec, "images": pixels}
    with replacing(out) as temporary:
        np.savez(temporary, h=h[good], paths=np.array([paths[i] for i in good], str),
                 problem_paths=np.array([paths[i] for i in problems], str),
                 problems=np.array(list(problems.values()), str), key=np.array(header_key(file)), use=np.array(USE),
                 about=np.array(json.dumps(about)))
    print(f"{described(pixels)}, {known}\n{len(good):,} images × {net.width} features: {out}; {USE}")
    list_problems(problems, paths)


def predict(run, images, out, device, protocol="", budget=None, specificity=90, group=""):
    """Write the scores of a finished probe or fine-tuning for the images of a folder or CSV, and say what was done.

    out: a .csv, one row per image; beside it one row per slide, in OUT_slides.csv. Raises as `embed` does.
    """
    out = writable(out, ".csv")
    head = open_head(run, protocol, budget)
    net = load_encoder(head["encoder"]).to(device)
    pixels, known = pixels_for(head["record"], net.spec["size"])
    folder, card, paths, groups, rule = find_images(images, pixels, group)
    h, problems = features_of(net, folder, card, paths, head["features"])
    try:
        far = unlike(h, *study_features(run, head["record"], net, head["features"]))
        how_far = f"percentile of the distance to labelled image {NEIGHBOUR} among the study's test images"
    except ConfigError as error:
        far, how_far = None, f"left empty: {error}"
    table, slides, decision = scores(head, h, paths, groups, problems, far, specificity)
    beside = out.with_name(f"{out.stem}_slides.csv")
    for path, rows in ((out, table), (beside, slides)):
        atomic_write(path, rows.to_csv(index=False, lineterminator="\n", float_format="%.9g"))
    print(f"head {head['cell']}; {described(pixels)}, {known}\nlabel: {decision}\ngroup: {rule}\n"
          f"unlike: {how_far}\n{len(paths) - len(problems):,} images of {len(slides):,} slides: {out}, {beside}; "
          f"{USE}")
    list_problems(problems, paths)


def features_of(encoder, folder, card, paths, what="h"):
    """h or token (N, D) of image files, NaN where one cannot be read, and {position: why not}."""
    h, problems = np.full((len(paths), encoder.width), np.nan, np.float32), {}
    for places, images, bad in decode(folder, card, paths):
        problems |= bad
        if places:
            h[places] = extract(encoder, images, what=what)
        print(f"{max([*places, *bad]) + 1:,} of {len(paths):,} images", flush=True)
    return h, problems


def decide(p, classes, task, thresholds, specificity):
    """Which classes each image is said to have, bool (n, C), and by which rule. p: (n, C).

    thresholds: {class: {"90": t, "95": t}} as model.json has them; binary and multilabel decide at that of the wanted
    specificity, without one at the larger probability, or at one half.
    """
    t = {name: values.get(str(specificity)) for name, values in thresholds.items()}
    if task == "multilabel":
        missing = sum(t.get(name) is None for name in classes)
        rule = f"each label at its threshold of {specificity} % specificity" + (
            f", {missing} without one at 0.5" if missing else "")
        return p >= [0.5 if t.get(name) is None else t[name] for name in classes], rule
    if task == "binary" and t.get(classes[1]) is not None:
        positive = p[:, 1] >= t[classes[1]]
        rule = f"{classes[1]} from {t[classes[1]]:.6g} on, the threshold of {specificity} % specificity"
        return np.stack([~positive, positive], 1), rule
    rule = "most probable class" + ("; no threshold was stored" if task == "binary" else "")
    return p.argmax(1)[:, None] == np.arange(len(classes)), rule


def unlike(h, labelled, held_out, k=NEIGHBOUR):
    """Percentile (n,) of each image's distance to its k-th nearest labelled one among that of held-out images; NaN
    where its features are. All (n, D)."""
    from sklearn.neighbors import NearestNeighbors

    def unit(x):
        return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)

    near = NearestNeighbors(n_neighbors=min(k, len(labelled)), algorithm="brute").fit(unit(labelled))
    known, far = np.isfinite(h).all(1), np.full(len(h), np.nan)
    if known.any():
        usual, own = (near.kneighbors(unit(x))[0][:, -1] for x in (held_out, h[known]))
        far[known] = 100 * np.searchsorted(np.sort(usual), own, side="right") / len(usual)
    return far


def scores(head, h, paths, groups, problems, far=None, specificity=90):
    """(one row per image, the unreadable ones last; one row per slide; the rule behind `label`).

    head: from `open_head`; h: (N, D); far: (N,) from `unlike`, or None: the column stays empty.
    """
    model, good = head["model"], np.array([i not in problems for i in range(len(paths))])
    classes, columns = model["classes"], [f"p_{name}" for name in model["classes"]]
    p = np.full((len(paths), len(classes)), np.nan)
    said, rule = np.zeros(p.shape, bool), ""
    if good.any():
        p[good] = apply_probe(head["arrays"], model["task"], h[good])
        thresholds = model["cells"][head["cell"]].get("thresholds", {})
        said[good], rule = decide(p[good], classes, model["task"], thresholds, specificity)
    table = pd.DataFrame({"path": paths, "group": groups})
    table[columns] = p
    table["label"] = ["|".join(np.array(classes)[row]) for row in said]
    table["unlike"] = np.nan if far is None else far
    table["problem"] = [problems.get(i, "") for i in range(len(paths))]
    table["use"] = USE
    by_slide = table.assign(problem=~good).groupby("group", sort=True)
    slides = by_slide.agg(images=("path", "size"), problems=("problem", "sum"), **{c: (c, "mean") for c in columns})
    shares = pd.DataFrame(said, columns=[f"share_{name}" for name in classes])[good]
    slides = slides.join(shares.groupby(np.array(groups)[good]).mean()).assign(use=USE).reset_index(names="group")
    order = np.argsort(~good, kind="stable")
    return table.iloc[order].reset_index(drop=True), slides, rule


def writable(path, suffix):
    """A path to write to, refused before anything is computed."""
    path = Path(path)
    if path.suffix != suffix or not path.absolute().parent.is_dir():
        raise ConfigError(f"--out {path}: give a name that ends in {suffix}, in a folder that is there")
    return path


def described(pixels):
    return f"images brought to {pixels['channels']} × {pixels['size']} × {pixels['size']} by {pixels['geometry']}"


def list_problems(problems, paths):
    """Print which images could not be read, and why."""
    if problems:
        print(f"{len(problems):,} images could not be read:")
    for i, reason in problems.items():
        print(f"  {paths[i]}: {reason}")
