"""Where an encoder looks: what each cell of its last map adds to the feature that ships."""

import torch
from jaxtyping import Float
from torch import Tensor

from fieldmark.nn.attention import MaxOutAttention
from fieldmark.nn.spec import EncoderSpec


@torch.inference_mode()
def contributions(spec: EncoderSpec, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B h w"]:
    """Length of each cell's feature, times its weight where an attention pools the cells.

    Nothing of the loss or of any class takes part: it says which places the feature is made of.

    Args:
        spec: An encoder.
        images: In [0, 1], of its size.
    """
    features = spec.backbone(images)
    length = features.tokens.float().norm(dim=2)
    for module in spec.inserted.values():
        if isinstance(module, MaxOutAttention):
            length = length * module.weights(features.tokens)
    return length.unflatten(1, features.shape)
