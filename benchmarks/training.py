"""One epoch of SimCLR at 32 px: our loop, the bare step on views made beforehand, and the loop of a thesis.

    python -m benchmarks.training

All three start from the same weights and see as many images, in batches of 256, with the same loss and LARS. The bare
step is what no loop can save: forward, backward, optimiser. The loop of the thesis (recipe "c", SimCLR on CIFAR-10-LT)
is written anew from its description; its checkpoint of every epoch is in, its five plots of every epoch are left out.
"""

import copy
import tempfile
import warnings
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from PIL import Image
from timm.optim import create_optimizer_v2
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.timing import medians
from ssl_core.augment import RECIPES, Augment
from ssl_core.encoders import Encoder
from ssl_core.methods.simclr import SimCLR
from ssl_core.train import OPTIMISERS, beginning, learning_rate, order, stream, train_epoch

SIZE, BATCH, IMAGES = 32, 256, 24 * 256
ENCODERS = ("test_resnet", "resnet10t")
CLASSES = 10
LARS = {"momentum": 0.9, "weight_decay": 5e-4, "trust_coeff": 1e-3}


def config(steps, batch=BATCH):
    """What the loop reads of a configuration, with the values of the thesis."""
    return SimpleNamespace(batch=batch, steps=steps, seed=0, lr=0.5, warmup=0.1, precision="fp32", optimiser="lars")


def colour_images(n, size=SIZE):
    """Smooth random colour images, (n, 3, size, size) uint8: what is in them costs no time."""
    smooth = torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return F.interpolate(smooth, (size, size), mode="bilinear").mul(255).byte()


def simclr(name, args=None, stem="default", size=SIZE):
    """SimCLR as in the thesis, around a timm network; normalisation is the network's first layer."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* keeps its ImageNet stem")
        torch.manual_seed(0)
        encoder = Encoder(name, args, stem, size, "imagenet")
    return SimCLR(encoder, Augment("c", size), tau=0.2, projector=(128, 128), projector_norm=False)


def our_loop(method, images, cfg, folder):
    """A function that trains one epoch, as `pretrain` does it: its epochs are calls of `train_epoch`."""
    method.to(memory_format=torch.channels_last)
    optimiser = create_optimizer_v2(method, OPTIMISERS[cfg.optimiser], lr=cfg.lr, **LARS)
    at, per_epoch = beginning(len(images), images.device), len(order(len(images), cfg.batch, cfg.seed, 0))
    return lambda: train_epoch(method, images, optimiser, cfg, folder, "", at, cfg.steps, per_epoch)


def ready_tensors(method, images, cfg):
    """A function that trains one epoch on the views that our loop draws in its first, made before the clock runs."""
    method.to(memory_format=torch.channels_last)
    optimiser = create_optimizer_v2(method, OPTIMISERS[cfg.optimiser], lr=cfg.lr, **LARS)
    views = [method.views(images[index], index, torch.Generator().manual_seed(stream(cfg.seed, 2, step)))
             for step, index in enumerate(map(torch.from_numpy, order(len(images), cfg.batch, cfg.seed, 0)))]

    def epoch():
        method.train()
        for step, pair in enumerate(views):
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(step, cfg.steps, cfg.lr, cfg.warmup)
            loss = method(*pair).loss.mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()

    return epoch


# --- the loop of the thesis -------------------------------------------------------------------------------------------

class PilPairs(Dataset):
    """Two views of an image, by torchvision on PIL, when the loader asks for it."""

    def __init__(self, images, labels, recipe, size):
        self.images, self.labels = images.permute(0, 2, 3, 1).numpy(), labels
        r = RECIPES[recipe]
        self.view = transforms.Compose([
            transforms.RandomResizedCrop(size, scale=r["scale"]),
            transforms.RandomHorizontalFlip(r["flip"]),
            transforms.RandomApply([transforms.ColorJitter(*r["jitter"])], r["jitter_p"]),
            transforms.RandomGrayscale(r["gray_p"]),
            transforms.ToTensor()])

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        image = Image.fromarray(self.images[i])
        return self.view(image), self.view(image), self.labels[i]


def masked_nt_xent(z1, z2, tau):
    """NT-Xent of the 2B anchors, (2B,): the positive first, then the negatives by a mask that a loop fills."""
    n = len(z1)
    mask = torch.ones(2 * n, 2 * n, dtype=torch.bool).fill_diagonal_(False)
    for i in range(n):
        mask[i, n + i] = False
        mask[n + i, i] = False
    z = F.normalize(torch.cat([z1, z2]), dim=1)
    similarity = z @ z.T / tau
    positives = torch.cat([similarity.diag(n), similarity.diag(-n)])[:, None]
    logits = torch.cat([positives, similarity[mask].view(2 * n, -1)], 1)
    return F.cross_entropy(logits, torch.zeros(2 * n, dtype=torch.int64), reduction="none")


class Lars(torch.optim.Optimizer):
    """LARS on every parameter, one after another."""

    def __init__(self, parameters, lr, momentum, weight_decay, trust_coeff):
        super().__init__(parameters, dict(lr=lr, momentum=momentum, decay=weight_decay, trust=trust_coeff))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                size, slope = p.norm(), p.grad.norm()
                rate = group["lr"] * group["trust"] * size / (slope + group["decay"] * size + 1e-8)
                moving = self.state[p].setdefault("momentum", torch.zeros_like(p))
                moving.mul_(group["momentum"]).add_(rate * (p.grad + group["decay"] * p))
                p.sub_(moving)


class ClassMeter:
    """Sums per class over an epoch; the label and the value of every image are read one by one."""

    def __init__(self):
        self.sums = [0.0] * CLASSES

    def add(self, values, labels):
        for value, label in zip(values, labels):
            self.sums[label.item()] += value.item()


def thesis_loop(method, images, cfg, folder):
    """A function that trains one epoch and returns its meters: distance and cosine of an image's two projections."""
    labels = torch.arange(len(images)) % CLASSES
    loader = DataLoader(PilPairs(images, labels, method.augment.name, method.augment.size), cfg.batch, shuffle=True)
    optimiser = Lars(method.parameters(), cfg.lr, **LARS)
    done = 0

    def epoch():
        nonlocal done
        distance, cosine = ClassMeter(), ClassMeter()
        method.train()
        for x1, x2, classes in loader:
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(done, cfg.steps, cfg.lr, cfg.warmup)
            z1, z2 = (method.projector(method.encoder(x).h) for x in (x1, x2))
            loss = masked_nt_xent(z1, z2, method.tau).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            distance.add((z1 - z2).norm(dim=1), classes)
            cosine.add(F.cosine_similarity(z1, z2), classes)
            done += 1
        torch.save({"method": method.state_dict(), "optimiser": optimiser.state_dict()}, folder / "thesis.pt")
        return distance, cosine

    return epoch


def rows(rounds=3, encoders=ENCODERS, n=IMAGES, batch=BATCH):
    """(name, ours, peer, ratio, unit) for each network and peer; images per second, ratio > 1: we are faster."""
    table, images, cfg = [], colour_images(n), config(rounds * (n // batch), batch)
    for name in encoders:
        method = simclr(name)
        ours, ready, thesis = (copy.deepcopy(method) for _ in range(3))
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            taken = medians({"ours": our_loop(ours, images, cfg, folder), "ready": ready_tensors(ready, images, cfg),
                             "thesis": thesis_loop(thesis, images, cfg, folder)}, rounds)
        rate = {loop: n / seconds for loop, seconds in taken.items()}
        table += [(f"one epoch of SimCLR, {name}, {SIZE} px, against {what}", rate["ours"], rate[peer],
                   rate["ours"] / rate[peer], "images/s")
                  for peer, what in (("ready", "ready tensors"), ("thesis", "the thesis' loop"))]
    return table


if __name__ == "__main__":
    for name, ours, peer, ratio, unit in rows():
        print(f"{name:66} {ours:9.1f} {peer:9.1f} {unit}  {ratio:5.2f} x")
