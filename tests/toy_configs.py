"""Configurations of the three stages for tests, each value open to change."""

import numpy as np

from ssl_core.config import FinetuneConfig, PretrainConfig, ProbeConfig

SHARED = dict(study="s", arm="", dataset="toy", image_size=32, split_kind="long_tail", ratio=100, twin="none",
              draw_seed=0, order_seed=0, n_max=0, total=0, positive=1, label_pool="balanced", test_fraction=0.2,
              val_fraction=0.0, part_seed=0, seed=0, device="cpu", threads=1)
NETWORK = dict(encoder="resnet10t", encoder_args={}, stem="cifar", normalisation="none")
OPTIMISER = dict(optimiser="adamw", lr=0.001, weight_decay=0.0, batch=64, warmup=0.1, precision="fp32")
EVALUATE = dict(budgets=[0.1, 1.0], budget_seed=0, class_weight="none", resamples=200)
POOLS = ["unlabelled", "labelled", "val", "test"]
INPUTS = {"data": "d" * 12, **{name: np.arange(9) + i for i, name in enumerate(POOLS)}}


def pretrain(**changes):
    return PretrainConfig(**SHARED | NETWORK | OPTIMISER | dict(
        method="simclr", method_args={}, wrap=[], init="random", recipe="simclr", optimiser_args={}, epochs=2, steps=0
    ) | changes)


def probe(**changes):
    return ProbeConfig(**SHARED | NETWORK | EVALUATE | dict(run="", floors=["pixels", "random"], weights="",
                                                            protocols=["linear", "knn"], heads={}) | changes)


def finetune(**changes):
    return FinetuneConfig(**SHARED | NETWORK | OPTIMISER | EVALUATE | dict(
        run="", recipe="weak", sampling="uniform", logit_adjustment=0.0, layer_decay=1.0, drop_path=0.0,
        label_smoothing=0.0, optimiser_args={}, weights="", protocol="finetune", train="all", head_lr=0.0,
        schedule="cosine",
        epochs=0, steps=9, select="last", layers=False) | changes)
