"""A small vision transformer."""

from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from mining import InputError


@final
class ViT(nn.Module):
    """Patches as tokens, pre-norm blocks of attention and MLP, and a linear head on their mean.

    Dosovitskiy et al. (2021), An Image is Worth 16x16 Words, Sec. 3.1, with the mean of the tokens
    in place of a class token, and no dropout.

    Args:
        input_shape: Shape ``(C, H, W)`` of one input, of a multiple of ``patch`` pixels.
        num_classes: Number of outputs.
        patch: Side of a patch, pixels.
        width: Entries of a token.
        depth: Number of blocks.
        heads: Attention heads of a block.

    Raises:
        InputError: If sides are no multiples of ``patch``, or ``width`` none of ``heads``.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        patch: int = 4,
        width: int = 64,
        depth: int = 4,
        heads: int = 4,
    ) -> None:
        super().__init__()
        channels, height, columns = input_shape
        if min(patch, width, depth, heads) < 1 or width % heads:
            raise InputError(
                f"patch, width, depth and heads must be positive, and width a multiple of heads, "
                f"got {patch}, {width}, {depth} and {heads}."
            )
        if height % patch or columns % patch:
            raise InputError(f"input_shape must be multiples of {patch} pixels, got {input_shape}.")
        tokens = (height // patch) * (columns // patch)
        self.embedding = nn.Conv2d(channels, width, patch, stride=patch)
        self.position = nn.Parameter(torch.zeros(1, tokens, width))
        nn.init.trunc_normal_(self.position, std=0.02)
        self.blocks = nn.Sequential(*(_Block(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs ``(B, C, H, W)`` to logits ``(B, num_classes)``."""
        tokens = self.embedding(inputs).flatten(2).transpose(1, 2) + self.position
        logits: Tensor = self.head(self.norm(self.blocks(tokens)).mean(1))
        return logits


@final
class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.attention = nn.ModuleDict(
            {name: nn.Linear(width, width) for name in ("query", "key", "value", "out")}
        )
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        normed = self.attention_norm(tokens)
        query, key, value = (
            self.attention[name](normed).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for name in ("query", "key", "value")
        )
        mixed = functional.scaled_dot_product_attention(query, key, value)
        tokens = tokens + self.attention["out"](mixed.transpose(1, 2).flatten(2))
        found: Tensor = tokens + self.mlp(self.mlp_norm(tokens))
        return found
