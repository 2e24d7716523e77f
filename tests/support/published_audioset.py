"""CED and EfficientAT a second time, from what their authors published, for tests to compare with.

`ced_logits` is written as plain arithmetic on the tensors of the checkpoint, after the description
in Dinkel et al. 2024 (arXiv:2308.11957) and the port for transformers (Xiaomi, Apache-2.0); nothing
is taken from the training code, which is under the GPL. `torchvision_mobilenet` is torchvision's
MobileNetV3 (BSD-3-Clause), which EfficientAT (MIT) says it adapts, with what differs put in.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torchvision.models.mobilenetv3 import InvertedResidual, InvertedResidualConfig, MobileNetV3
from torchvision.ops import SqueezeExcitation


def ced_attentions(
    state: Mapping[str, Tensor], x: Tensor, n_heads: int
) -> tuple[Tensor, list[Tensor]]:
    """Tokens behind the last block, and every block's attention (batch, heads, tokens, tokens).

    `x` is (batch, mel, frames), in decibels.
    """
    body = {k.removeprefix("encoder."): v for k, v in state.items()}
    mean, deviation = body["init_bn.running_mean"], (body["init_bn.running_var"] + 1e-5).sqrt()
    x = (x - mean[:, None]) / deviation[:, None]
    x = x * body["init_bn.weight"][:, None] + body["init_bn.bias"][:, None]
    rows, columns = x.shape[1] // 16, x.shape[2] // 16
    kernel, tokens = body["patch_embed.proj.weight"].flatten(1), []
    for row in range(rows):
        for column in range(columns):
            patch = x[:, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16].flatten(1)
            place = body["time_pos_embed"][0, :, 0, column] + body["freq_pos_embed"][0, :, row, 0]
            tokens.append(patch @ kernel.T + body["patch_embed.proj.bias"] + place)
    hidden, attentions = torch.stack(tokens, dim=1), []
    n_blocks = 1 + max(int(k.split(".")[1]) for k in body if k.startswith("blocks."))
    for i in range(n_blocks):
        block = {
            k.removeprefix(f"blocks.{i}."): v
            for k, v in body.items()
            if k.startswith(f"blocks.{i}.")
        }
        normalised = _standardise(hidden, block["norm1.weight"], block["norm1.bias"], 1e-6)
        together = normalised @ block["attn.qkv.weight"].T + block["attn.qkv.bias"]
        query, key, value = (
            torch.stack(part.chunk(n_heads, dim=2), dim=1) for part in together.chunk(3, dim=2)
        )
        attention = (query @ key.transpose(2, 3) / query.shape[3] ** 0.5).softmax(dim=3)
        attentions.append(attention)
        mixed = torch.cat((attention @ value).unbind(1), dim=2)
        hidden = hidden + mixed @ block["attn.proj.weight"].T + block["attn.proj.bias"]
        normalised = _standardise(hidden, block["norm2.weight"], block["norm2.bias"], 1e-6)
        wide = normalised @ block["mlp.fc1.weight"].T + block["mlp.fc1.bias"]
        wide = wide * 0.5 * (1 + torch.erf(wide / 2**0.5))
        hidden = hidden + wide @ block["mlp.fc2.weight"].T + block["mlp.fc2.bias"]
    return hidden, attentions


def ced_logits(state: Mapping[str, Tensor], x: Tensor, n_heads: int) -> Tensor:
    """(batch, mel, frames) in decibels -> logits (batch, labels)."""
    hidden, _ = ced_attentions(state, x, n_heads)
    pooled = _standardise(
        hidden, state["encoder.norm.weight"], state["encoder.norm.bias"], 1e-6
    ).mean(dim=1)
    pooled = _standardise(pooled, state["outputlayer.0.weight"], state["outputlayer.0.bias"], 1e-5)
    return pooled @ state["outputlayer.1.weight"].T + state["outputlayer.1.bias"]


def _standardise(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    return weight * centred / (centred.square().mean(dim=-1, keepdim=True) + epsilon).sqrt() + bias


# Input channels, kernel, expanded channels, output channels, squeeze-and-excitation, activation,
# stride, dilation: MobileNetV3-Large, Howard et al. 2019, table 1.
_ROWS = (
    (16, 3, 16, 16, False, "RE", 1, 1),
    (16, 3, 64, 24, False, "RE", 2, 1),
    (24, 3, 72, 24, False, "RE", 1, 1),
    (24, 5, 72, 40, True, "RE", 2, 1),
    (40, 5, 120, 40, True, "RE", 1, 1),
    (40, 5, 120, 40, True, "RE", 1, 1),
    (40, 3, 240, 80, False, "HS", 2, 1),
    (80, 3, 200, 80, False, "HS", 1, 1),
    (80, 3, 184, 80, False, "HS", 1, 1),
    (80, 3, 184, 80, False, "HS", 1, 1),
    (80, 3, 480, 112, True, "HS", 1, 1),
    (112, 3, 672, 112, True, "HS", 1, 1),
    (112, 5, 672, 160, True, "HS", 2, 1),
    (160, 5, 960, 160, True, "HS", 1, 1),
    (160, 5, 960, 160, True, "HS", 1, 1),
)


def torchvision_mobilenet(state: Mapping[str, Tensor]) -> nn.Module:
    """torchvision's MobileNetV3-Large with the tensors of an EfficientAT checkpoint.

    One input channel, a sigmoid in squeeze-and-excitation, whose linear layers are 1x1 convolutions
    here, and the classifier behind the pooling that torchvision has outside of it.
    """
    network = MobileNetV3(
        inverted_residual_setting=[InvertedResidualConfig(*row, 1.0) for row in _ROWS],
        last_channel=1280,
        num_classes=len(state["classifier.5.bias"]),
        block=partial(
            InvertedResidual, se_layer=partial(SqueezeExcitation, scale_activation=nn.Sigmoid)
        ),
    )
    network.features[0][0] = nn.Conv2d(1, 16, 3, stride=2, padding=1, bias=False)
    renamed = {}
    for name, tensor in state.items():
        ours = name.replace(".conc_se_layers.0", "").replace("classifier.2.", "classifier.0.")
        ours = ours.replace("classifier.5.", "classifier.3.")
        is_squeeze = ".fc1.weight" in ours or ".fc2.weight" in ours
        renamed[ours] = tensor[:, :, None, None] if is_squeeze else tensor
    network.load_state_dict(renamed)
    return network.eval()
