"""Class activation maps by pytorch-grad-cam, taken on the head alone.

The head of the cut network starts behind an identity, which is the layer that pytorch-grad-cam
explains. Its gradients are those of the whole network: everything before it is the same function.

Score-CAM on a cut network: every channel is asked what the network sees through it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xai_demo.errors import UnsuitableError
from xai_demo.explainers.base import BATCH_SIZE, Meter

if TYPE_CHECKING:
    from torch import Tensor, nn

    from xai_demo.explainers.base import Budget, Subject
    from xai_demo.records import Floats

    AttributionMethod = Callable[[Subject, Sequence[int], Budget], Floats]


def gradient_cam(method: str) -> AttributionMethod:
    """Heat from the activations and the gradients of the logits with respect to them."""

    def heat(subject: Subject, targets: Sequence[int], budget: Budget) -> Floats:
        flat = _repeat_per_target(subject.activations, targets)
        gradients = _to_numpy(subject.maps(_gradients(flat, subject.head, targets)))
        return _pytorch_grad_cam(method, subject.maps(flat), subject.head, gradients, targets)

    return heat


def class_weight_cam(subject: Subject, targets: Sequence[int], budget: Budget) -> Floats:
    """CAM: the maps weighed as the last layer weighs their means. Zhou et al. 2016, equation 2.

    Raises UnsuitableError where the head is anything but that mean and that layer.
    """
    import torch
    from torch import nn

    maps, head = subject.maps(subject.activations), subject.head
    layers = [m for m in head.modules() if isinstance(m, nn.Linear)]
    with torch.inference_mode():
        if len(layers) != 1 or layers[0].in_features != maps.shape[1]:
            raise _not_pooled_error()
        if not torch.allclose(
            head(subject.activations), layers[0](maps.mean((2, 3))), rtol=1e-3, atol=1e-3
        ):
            raise _not_pooled_error()
        heat = torch.einsum("tc,nchw->nthw", layers[0].weight[list(targets)], maps)
    return np.maximum(_to_numpy(heat), 0)


def _not_pooled_error() -> UnsuitableError:
    return UnsuitableError(
        "After the explained layer this network does more than average and weigh, wanted for CAM: "
        "one that does not, as a ResNet, or another explainer, as Grad-CAM."
    )


def eigengrad_cam(subject: Subject, targets: Sequence[int], budget: Budget) -> Floats:
    """EigenGrad-CAM: the first principal component of activations times gradients."""
    flat = _repeat_per_target(subject.activations, targets)
    gradients = _gradients(flat, subject.head, targets)
    weighted = _to_numpy(subject.maps(flat)) * _to_numpy(subject.maps(gradients))
    heat = np.maximum(_first_principal_component(weighted), 0)
    return heat.reshape(-1, len(targets), *heat.shape[1:])


def eigen_cam(subject: Subject, targets: Sequence[int], budget: Budget) -> Floats:
    """Eigen-CAM: the first principal component of the activations, the same for every target."""
    one = np.maximum(_first_principal_component(_to_numpy(subject.maps(subject.activations))), 0)
    return np.repeat(one[:, None], len(targets), axis=1)


def ablation_cam(subject: Subject, targets: Sequence[int], budget: Budget) -> Floats:
    """Ablation-CAM: a channel weighs what the logit loses without it.

    Desai & Ramaswamy 2020, equation 4. pytorch-grad-cam runs one small forward pass per channel; on
    a cut network all of them are a few batches.
    """
    import torch

    activations, head = subject.activations, subject.head
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
    return np.maximum(_to_numpy(heat), 0)


def _pytorch_grad_cam(
    method: str,
    activations: Tensor,
    head: nn.Module,
    gradients: Floats,
    targets: Sequence[int],
) -> Floats:
    import pytorch_grad_cam
    from torch import nn

    identity = nn.Identity()
    model = nn.Sequential(identity, head)
    maps: Any = getattr(pytorch_grad_cam, method)
    with maps(model=model, target_layers=[identity]) as camera:
        heat = camera.get_cam_image(
            activations, identity, list(targets), _to_numpy(activations), gradients, False
        )
    heat = np.maximum(np.nan_to_num(heat), 0).astype(np.float32)
    result: Floats = heat.reshape(-1, len(targets), *heat.shape[1:])
    return result


def _gradients(flat: Tensor, head: nn.Module, targets: Sequence[int]) -> Tensor:
    """Of each row's own target with respect to that row of activations."""
    import torch

    x = flat.clone().requires_grad_(True)
    columns = torch.tensor(list(targets) * (len(x) // len(targets)))
    with torch.enable_grad():
        logits = head(x)[torch.arange(len(x)), columns].sum()
        gradients: Tensor = torch.autograd.grad(logits, x)[0]
    return gradients


def _first_principal_component(maps: Floats) -> Floats:
    """(n, channels, rows, columns) projected on its first principal component: (n, rows, columns).

    pytorch-grad-cam's projection with the decomposition cut to what is used: its full one, of
    channels by channels, takes hundreds of times longer.
    """
    places = np.nan_to_num(maps).reshape(*maps.shape[:2], -1).transpose(0, 2, 1)
    places = places - places.mean(axis=1, keepdims=True)
    _, _, directions = np.linalg.svd(places, full_matrices=False)
    projected: Floats = np.einsum("npc,nc->np", places, directions[:, 0])
    return projected.reshape(len(maps), *maps.shape[2:]).astype(np.float32)


def _repeat_per_target(activations: Tensor, targets: Sequence[int]) -> Tensor:
    """(samples, ...) -> (samples * targets, ...), the targets of one sample beside each other."""
    return activations.detach().clone().repeat_interleave(len(targets), dim=0)


def _to_numpy(tensor: Tensor) -> Floats:
    array: Floats = tensor.detach().cpu().numpy()
    return array


def score_cam(subject: Subject, targets: Sequence[int], budget: Budget) -> Floats:
    """Channels, each weighed by the logit of the picture seen through it.

    Wang et al. 2020, equations 7-10, as pytorch-grad-cam has it, for all targets in one go, with
    two differences: what a channel hides becomes background (there: zero), and within a budget the
    channels that vary most are asked.
    """
    import torch

    laid_out = subject.maps(subject.activations).cpu()
    asked = min(budget.passes or 1, laid_out.shape[1])
    meter = Meter(budget, len(subject.inputs) * asked)
    maps = []
    with torch.inference_mode():
        for window, activations in zip(subject.inputs, laid_out, strict=True):
            spread = activations.flatten(1).std(dim=1, correction=0)
            chosen = activations[spread.topk(asked).indices]
            weights = _channel_scores(subject, window, chosen, list(targets), meter).softmax(dim=0)
            maps.append(torch.einsum("ct,chw->thw", weights, chosen).numpy())
    result: Floats = np.maximum(np.stack(maps), 0)
    return result


def _channel_scores(
    subject: Subject, window: Floats, channels: Tensor, columns: list[int], meter: Meter
) -> Tensor:
    """The logits of the picture through each channel: (channels, targets)."""
    import torch
    from torch.nn.functional import interpolate

    scores = []
    for batch in channels.split(BATCH_SIZE):
        masks = interpolate(batch[:, None], window.shape[-2:], mode="bilinear", align_corners=True)
        least = masks.amin(dim=(2, 3), keepdim=True)
        masks = (masks - least) / (masks.amax(dim=(2, 3), keepdim=True) - least + 1e-8)
        seen = subject.background + masks.numpy() * (window - subject.background)
        logits = subject.forward(seen.astype(np.float32))
        scores.append(torch.from_numpy(np.asarray(logits, np.float32)[:, columns]))
        meter.spend(len(batch))
    return torch.cat(scores)
