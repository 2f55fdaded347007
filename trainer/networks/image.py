"""The 2D networks: from images to features on a coarser grid (stride 8; 16 for the MobileNet variant)."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from cache_schemas.extensions import find, known_names
from trainer.errors import TrainerError
from trainer.networks.imagenet import IMAGENET, check, imagenet_file
from trainer.networks.norms import replace_norms

MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's RGB in 0..1; the backbones expect images normalised with them."""

EXTENSIONS = "trainer.image_weights"
"""Entry point group of backbone weights that packages ship: a name and the path of a file."""


class ImageNetwork(nn.Module):
    """Maps images (B, 3, H, W) u8 to features (B, `channels`, h, w)."""

    def __init__(self, body: nn.Module, channels: int) -> None:
        """Put normalisation before a network `body` whose output has `channels` channels."""
        super().__init__()
        self.body, self.channels = body, channels
        self.mean: Tensor
        self.spread: Tensor
        self.register_buffer("mean", 255 * torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("spread", 255 * torch.tensor(SPREAD)[:, None, None], persistent=False)

    def forward(self, rgb: Tensor) -> Tensor:
        """Return features (B, `channels`, h, w)."""
        features: Tensor = self.body((rgb.float() - self.mean) / self.spread)
        return features


def build_image_network(name: str, weights: Path | None) -> ImageNetwork:
    """Build a 2D network, its backbone with a classifier's `weights` if given: a file, or the name of shipped ones.

    The backbone starts from noise if these are `imagenet` and absent (`imagenet.absence` says so).

    Raises:
        TrainerError: if the weights cannot be read, do not fit, or are not the official ones.
    """
    network = BUILDERS[name]()
    if weights == IMAGENET:
        file = imagenet_file(name)
        if file.exists():
            check(file)
            load_backbone(network, file)
    elif weights:
        load_backbone(network, weights)
    return network


def load_backbone(network: ImageNetwork, file: Path) -> None:
    """Load a classifier's weights into a torchvision backbone; the classifier's own last layers stay out.

    Raises:
        TrainerError: if the file cannot be read as plain tensors, or lacks some of the backbone's.
    """
    backbone = getattr(network.body, "backbone", network.body)
    file = find(str(file), {}, EXTENSIONS) or file
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise TrainerError(
            f"networks.image_weights {file}: {str(error).splitlines()[0]}; give a state dict "
            f"or one of: {', '.join(known_names((), EXTENSIONS))}"
        ) from None
    wanted = backbone.state_dict()
    named = {name.removeprefix("features."): tensor for name, tensor in state.items()}
    found = {name: tensor for name, tensor in named.items() if name in wanted and tensor.shape == wanted[name].shape}
    missing = sorted(set(wanted) - set(found))
    if missing:
        raise TrainerError(
            f"networks.image_weights {file}: {len(missing)} of {len(wanted)} tensors are missing, such as "
            f"{missing[0]}; give the backbone of that network, or null to start from noise"
        )
    backbone.load_state_dict(found)


def _resnet50() -> ImageNetwork:
    from torchvision.models.segmentation import deeplabv3_resnet50

    return ImageNetwork(_Deeplab(deeplabv3_resnet50(weights=None, weights_backbone=None)), 256)


def _mobilenet() -> ImageNetwork:
    from torchvision.models.segmentation import deeplabv3_mobilenet_v3_large

    return ImageNetwork(_Deeplab(deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None)), 256)


def _small() -> ImageNetwork:
    return ImageNetwork(SmallNetwork(), SmallNetwork.channels)


BUILDERS: dict[str, Callable[[], ImageNetwork]] = {
    "deeplabv3-resnet50": _resnet50,
    "deeplabv3-mobilenet": _mobilenet,
    "small": _small,
}


class _Deeplab(nn.Module):
    """torchvision's DeepLabV3 without its last layer, which our heads replace."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        backbone, classifier = model.backbone, model.classifier
        assert isinstance(backbone, nn.Module) and isinstance(classifier, nn.Sequential)
        self.backbone = backbone
        self.classifier = nn.Sequential(*list(classifier)[:-1])
        replace_norms(self)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's types lack this argument

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.classifier(self.backbone(x.contiguous(memory_format=torch.channels_last))["out"])
        return features


class SmallNetwork(nn.Module):
    """A small network for CPUs: three strided convolutions, dilated residual blocks, and the mean over the image."""

    channels = 96

    def __init__(self) -> None:
        """Build the network with random weights; its group norms do not depend on the batch."""
        super().__init__()
        width = self.channels
        self.stem = nn.Sequential(_conv(3, 24, stride=2), _conv(24, 48, stride=2), _conv(48, width, stride=2))
        self.blocks = nn.ModuleList(
            nn.Sequential(_conv(width, width // 2, dilation=d), _conv(width // 2, width, kernel=1, act=False))
            for d in (1, 2, 4, 8)
        )
        self.context = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return features (B, 96, H / 8, W / 8)."""
        x = self.stem(x)
        for block in self.blocks:
            x = (x + block(x)).relu()
        features: Tensor = x + self.context(x.mean(dim=(2, 3)))[:, :, None, None]
        return features


def _conv(
    before: int, after: int, *, kernel: int = 3, stride: int = 1, dilation: int = 1, act: bool = True
) -> nn.Sequential:
    padding = dilation * (kernel // 2)
    layers = [
        nn.Conv2d(before, after, kernel, stride, padding, dilation, bias=False),
        nn.GroupNorm(8, after),
    ]
    return nn.Sequential(*layers, *([nn.ReLU(inplace=True)] if act else []))
