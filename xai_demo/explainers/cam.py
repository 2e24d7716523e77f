"""Class activation maps by pytorch-grad-cam, taken on the head alone.

The head of the cut network starts behind an identity, which is the layer that pytorch-grad-cam
explains. Its gradients are those of the whole network, since everything before it is the same function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor, nn

    from xai_demo.records import Floats

    Heat = Callable[[Tensor, nn.Module, Sequence[int]], Floats]


def by_gradient(method: str) -> Heat:
    """Heat from the activations and the gradients of the logits with respect to them."""

    def heat(activations: Tensor, head: nn.Module, targets: Sequence[int]) -> Floats:
        import torch

        flat = _repeated(activations, targets).requires_grad_(True)
        rows = torch.arange(len(flat))
        with torch.enable_grad():
            logits = head(flat)[rows, _columns(activations, targets)].sum()
            (gradients,) = torch.autograd.grad(logits, flat)
        return _map(method, flat.detach(), head, _numpy(gradients), targets)

    return heat


def by_activation(method: str) -> Heat:
    """Heat from the activations alone: the same for every target."""

    def heat(activations: Tensor, head: nn.Module, targets: Sequence[int]) -> Floats:
        one = _map(method, activations, head, None, targets[:1])
        return np.repeat(one, len(targets), axis=1)

    return heat


def by_ablation(activations: Tensor, head: nn.Module, targets: Sequence[int]) -> Floats:
    """Ablation-CAM: a channel weighs what the logit loses without it. Desai & Ramaswamy 2020, equation 4.

    pytorch-grad-cam runs one small forward pass per channel; on a cut network all of them are a few batches.
    """
    import torch

    with torch.inference_mode():
        columns = list(targets)
        whole = head(activations)[:, columns]  # (samples, targets)
        losses = []
        for sample, base in zip(activations, whole, strict=True):
            without = []
            for channels in torch.arange(len(sample)).split(64):
                batch = sample.repeat(len(channels), 1, 1, 1)
                batch[torch.arange(len(channels)), channels] = 0
                without.append(head(batch)[:, columns])
            losses.append((base - torch.cat(without)) / base)  # (channels, targets)
        weights = torch.stack(losses)  # (samples, channels, targets)
        heat = torch.einsum("nct,nchw->nthw", weights, activations)
    return np.maximum(_numpy(heat), 0)


def _map(
    method: str,
    activations: Tensor,
    head: nn.Module,
    gradients: Floats | None,
    targets: Sequence[int],
) -> Floats:
    import pytorch_grad_cam
    from torch import nn

    identity = nn.Identity()
    model = nn.Sequential(identity, head)
    maps: Any = getattr(pytorch_grad_cam, method)
    with maps(model=model, target_layers=[identity]) as camera:
        heat = camera.get_cam_image(
            activations, identity, list(targets), _numpy(activations), gradients, False
        )
    heat = np.maximum(np.nan_to_num(heat), 0).astype(np.float32)
    result: Floats = heat.reshape(-1, len(targets), *heat.shape[1:])
    return result


def _repeated(activations: Tensor, targets: Sequence[int]) -> Tensor:
    """(samples, ...) -> (samples * targets, ...), the targets of one sample beside each other."""
    return activations.detach().clone().repeat_interleave(len(targets), dim=0)


def _columns(activations: Tensor, targets: Sequence[int]) -> Tensor:
    import torch

    return torch.tensor(list(targets) * len(activations))


def _numpy(tensor: Tensor) -> Floats:
    array: Floats = tensor.detach().cpu().numpy()
    return array
