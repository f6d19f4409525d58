"""Masked autoencoder. He, Chen, Xie, Li, Dollár, Girshick: Masked Autoencoders Are Scalable Vision Learners,
CVPR 2022, arXiv 2111.06377. §3 and §A.1."""

import math

import torch
from timm.models.vision_transformer import Block
from torch import nn

from ssl_core.encoders import Features
from ssl_core.methods.base import Method, Step, check


def patchify(images, patch_size):
    """(B, C, H, W) → (B, L, p·p·C): patches row by row, the values of one ordered row, column, channel."""
    b, c, h, w = images.shape
    p = patch_size
    return images.reshape(b, c, h // p, p, w // p, p).permute(0, 2, 4, 3, 5, 1).reshape(b, -1, p * p * c)


def unpatchify(patches, patch_size):
    """The inverse of `patchify`, for square images: (B, L, p·p·C) → (B, C, S, S)."""
    b, n, d = patches.shape
    g, p = math.isqrt(n), patch_size
    return patches.reshape(b, g, g, p, p, d // p**2).permute(0, 5, 1, 3, 2, 4).reshape(b, d // p**2, g * p, g * p)


def patch_statistics(target):
    """Mean and unbiased standard deviation of each patch, 1e-6 under the root: (B, L, D) → two (B, L, 1)."""
    return target.mean(2, keepdim=True), (target.var(2, keepdim=True) + 1e-6).sqrt()


def mae_loss(pred, images, mask, patch_size, norm_pix):
    """Mean squared error per patch, averaged over the removed patches of an image (§3, "Reconstruction target").

    pred: (B, L, p·p·C); images: (B, C, S, S), raw; mask: (B, L), 1 = removed; norm_pix: each patch is predicted after
    subtraction of its mean and division by its standard deviation → (B,).
    """
    pred, images = (t.float() if t.dtype in (torch.float16, torch.bfloat16) else t for t in (pred, images))
    target = patchify(images, patch_size)
    if norm_pix:
        mean, std = patch_statistics(target)
        target = (target - mean) / std
    error = (pred - target).square().mean(2)
    return (error * mask).sum(1) / mask.sum(1)


def random_masking(noise, ratio):
    """Keep the patches of least noise: noise (B, L) → keep, their positions (B, K), and mask (B, L), 1 = removed."""
    length = noise.shape[1]
    keep = noise.argsort(1)[:, :length - round(length * ratio)]
    return keep, torch.ones_like(noise).scatter(1, keep, 0)


def sincos_positions(rows, columns, dim):
    """Fixed positions, rows · columns × dim: the first half of the channels for the row, the second for the column,
    each sin and cos (place / 10000^(4i/dim))."""
    rate = 10000.0 ** (-torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    place = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).double()
    angle = place[:, :, None] * rate
    return torch.cat([angle.sin(), angle.cos()], 2).flatten(1).float()


class MAE(Method):
    """mask_ratio .75, normalised pixels and a decoder of 8 blocks, 512 wide, with 16 heads: the paper's choices (§4.1).

    Takes any timm vision transformer with absolute positions, which are replaced by fixed sine-cosine ones. Whether h
    is the class token or the mean of patches is the encoder's `global_pool`: "token", or "avg" with
    `fc_norm` false.
    """

    def __init__(self, encoder, augment, n=0, mask_ratio=0.75, norm_pix=True,
                 decoder_width=512, decoder_depth=8, decoder_heads=16):
        super().__init__(encoder, augment, n)
        backbone, name = encoder.backbone, encoder.spec["name"]
        for part in ("patch_embed", "pos_embed", "blocks", "norm"):
            if getattr(backbone, part, None) is None:
                raise ValueError(f"MAE needs a vision transformer, as vit_tiny_patch16_224; {name} has no {part}")
        if idle := [p for p, _ in backbone.named_parameters() if p.startswith(("fc_norm.", "attn_pool."))]:
            raise ValueError(f"MAE would leave {idle[0].partition('.')[0]} of {name} untrained, which comes after "
                             "pooling; give encoder_args global_pool: token, or global_pool: avg and fc_norm: false")
        for what, width in ((f"{name}, embed_dim", backbone.embed_dim), ("decoder_width", decoder_width)):
            if width % 4:
                raise ValueError(f"{what} is {width}; sine-cosine positions need a multiple of 4")
        self.grid, self.patch_size = backbone.patch_embed.grid_size, backbone.patch_embed.patch_size[0]
        length = math.prod(self.grid)
        check("()", high=1, mask_ratio=mask_ratio)
        if self.grid[0] * self.patch_size != encoder.spec["size"]:
            raise ValueError(f"{encoder.spec['size']} px cannot be cut into patches of {self.patch_size} px; "
                             "give encoder_args a patch_size that divides it")
        if not 0 < round(length * mask_ratio) < length:  # few patches
            raise ValueError(f"mask_ratio {mask_ratio} removes {round(length * mask_ratio)} of {length} patches")
        self.mask_ratio, self.norm_pix = mask_ratio, norm_pix

        positions = sincos_positions(*self.grid, backbone.embed_dim)
        prefix = backbone.pos_embed.shape[1] - length  # the cls token's position is 0
        backbone.pos_embed.requires_grad_(False)
        backbone.pos_embed.copy_(nn.functional.pad(positions, (0, 0, prefix, 0))[None])

        self.embed = nn.Linear(backbone.embed_dim, decoder_width)
        self.mask_token = nn.Parameter(torch.empty(1, 1, decoder_width).normal_(std=0.02))
        self.register_buffer("positions", sincos_positions(*self.grid, decoder_width), persistent=False)
        self.decoder = nn.Sequential(
            *(Block(decoder_width, decoder_heads, qkv_bias=True) for _ in range(decoder_depth)),
            nn.LayerNorm(decoder_width), nn.Linear(decoder_width, 3 * self.patch_size**2))
        for layer in (self.embed, *self.decoder.modules()):
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def views(self, images, index, generator=None):
        """One view and the noise that decides which patches are removed: float (B, 3, S, S) and (B, L)."""
        x = self.augment(images, generator)
        source = x.device if generator is None else generator.device
        return x, torch.rand(len(x), len(self.positions), generator=generator, device=source).to(x.device)

    def encode(self, x, noise):
        """The encoder on what is left of x: tokens (B, prefix + K, D), keep (B, K), mask (B, L)."""
        backbone, prefix = self.encoder.backbone, self.encoder.backbone.num_prefix_tokens
        keep, mask = random_masking(noise, self.mask_ratio)
        tokens = backbone._pos_embed(backbone.patch_embed(self.encoder.normalise(x)))
        visible = tokens[:, prefix:].gather(1, keep[:, :, None].expand(-1, -1, tokens.shape[2]))
        tokens = backbone.norm_pre(torch.cat([tokens[:, :prefix], visible], 1))
        return backbone.norm(backbone.blocks(tokens)), keep, mask

    def decode(self, tokens, keep):
        """Every patch from the visible tokens, with mask tokens in the places of the others: (B, L, p·p·3)."""
        prefix, tokens = self.encoder.backbone.num_prefix_tokens, self.embed(tokens)
        b, _, width = tokens.shape
        places = self.mask_token.to(tokens.dtype).expand(b, len(self.positions), width)
        places = places.scatter(1, keep[:, :, None].expand(-1, -1, width), tokens[:, prefix:]) + self.positions
        return self.decoder(torch.cat([tokens[:, :prefix], places], 1))[:, prefix:]

    def forward(self, x, noise):
        tokens, keep, mask = self.encode(x, noise)
        loss = mae_loss(self.decode(tokens, keep), x, mask, self.patch_size, self.norm_pix)
        return Step(loss, (Features(self.encoder.backbone.forward_head(tokens, pre_logits=True)),))

    @torch.no_grad()
    def reconstruct(self, x, noise):
        """What a panel shows, each (B, 3, S, S) in [0, 1]: `original`; `masked`, removed patches filled with the mean
        colour of the others; `reconstruction`; `pasted`, with the original where it was visible; `floor`, what `pasted`
        has to beat; and `removed` (B, 1, S, S), 1 or 0.

        With norm_pix a prediction has no mean and spread of its own and is shown with those of the true patch: `floor`
        then is a fill by each patch's own mean; else it is `masked`.
        """
        tokens, keep, mask = self.encode(x, noise)
        pred, size = self.decode(tokens, keep).float(), self.patch_size
        removed = unpatchify(mask[:, :, None].expand(-1, -1, size**2), size)
        colour = (x * (1 - removed)).sum((2, 3), keepdim=True) / (1 - removed).sum((2, 3), keepdim=True)
        masked = floor = torch.where(removed > 0, colour, x)
        if self.norm_pix:
            mean, std = patch_statistics(patchify(x, size))
            pred = pred * std + mean
            floor = torch.where(removed > 0, unpatchify(mean.expand_as(pred), size), x)
        reconstruction = unpatchify(pred, size).clamp(0, 1)
        return {"original": x, "masked": masked, "reconstruction": reconstruction, "floor": floor, "removed": removed,
                "pasted": torch.where(removed > 0, reconstruction, x)}
