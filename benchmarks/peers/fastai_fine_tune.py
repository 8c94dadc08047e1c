"""fastai's recipe, as its documentation has it, on the weights of EfficientNet-Lite0: run by against_fastai.py, in fastai's
own environment.

    python fastai_fine_tune.py DATA WEIGHTS EPOCHS

DATA has train/<class>/ and valid/<class>/; prints one JSON line: accuracy on valid, and with test-time augmentation.
"""

import json
import sys
from pathlib import Path

import torch
from fastai.vision.all import (
    ImageDataLoaders,
    Learner,
    Normalize,
    Resize,
    ResizeMethod,
    accuracy,
    aug_transforms,
    create_head,
    params,
    set_seed,
)  # fmt: skip
from torch import nn
from torch.nn import functional

# expansion, channels out, repeats, stride, kernel size: a row a stage
STAGES = (
    (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)  # fmt: skip
SIZE, FEATURES, SPLIT = 224, 1280, 8


class Convolution(nn.Conv2d):
    """A convolution that pads as TensorFlow does: where a side is odd, more at the end."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve (n, channels, height, width)."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        pads = [max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in x.shape[:1:-1]]
        sides = [part for pad in pads for part in (pad // 2, pad - pad // 2)]
        return functional.conv2d(functional.pad(x, sides), self.weight, None, self.stride, 0, 1, self.groups)


def normalised(channels: int) -> nn.BatchNorm2d:
    """Batch norm as the weights were trained with."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class Block(nn.Module):
    """An inverted bottleneck; its parts have the names of the weights."""

    def __init__(self, before: int, after: int, expansion: int, stride: int, kernel: int) -> None:
        super().__init__()
        wide = before * expansion
        if expansion > 1:
            self._expand_conv, self._bn0 = Convolution(before, wide, 1, bias=False), normalised(wide)
        self._depthwise_conv = Convolution(wide, wide, kernel, stride, groups=wide, bias=False)
        self._bn1, self._bn2 = normalised(wide), normalised(after)
        self._project_conv = Convolution(wide, after, 1, bias=False)
        self.adds = stride == 1 and before == after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Expand, convolve each channel, project; add the input where shapes allow."""
        y = functional.relu6(self._bn0(self._expand_conv(x))) if hasattr(self, "_expand_conv") else x
        y = self._bn2(self._project_conv(functional.relu6(self._bn1(self._depthwise_conv(y)))))
        return x + y if self.adds else y


class Body(nn.Module):
    """The network without its classifier: (n, 3, 224, 224) to (n, 1280, 7, 7)."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = Convolution(3, 32, 3, 2, bias=False), normalised(32)
        blocks, before = [], 32
        for expansion, after, repeats, stride, kernel in STAGES:
            for number in range(repeats):
                blocks.append(Block(before, after, expansion, 1 if number else stride, kernel))
                before = after
        self._blocks = nn.ModuleList(blocks)
        self._conv_head, self._bn1 = Convolution(before, FEATURES, 1, bias=False), normalised(FEATURES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the last spatial map."""
        x = functional.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        return functional.relu6(self._bn1(self._conv_head(x)))


def split(model: nn.Sequential) -> list:
    """Return the parameters in fastai's usual three groups: early layers, late layers, head."""
    body = model[0]
    early = [body._conv_stem, body._bn0, *body._blocks[:SPLIT]]
    late = [*body._blocks[SPLIT:], body._conv_head, body._bn1]
    return [[one for part in group for one in params(part)] for group in (early, late)] + [params(model[1])]


def main() -> None:
    """Train, and print what came out."""
    data, weights, epochs = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    set_seed(0, reproducible=True)
    mean, spread = [127 / 255] * 3, [128 / 255] * 3
    loaders = ImageDataLoaders.from_folder(
        data, train="train", valid="valid", bs=32, num_workers=2, item_tfms=Resize(256, method=ResizeMethod.Squish),
        batch_tfms=[*aug_transforms(size=SIZE), Normalize.from_stats(mean, spread, cuda=False)],
    )  # fmt: skip
    body = Body()
    state = torch.load(weights, weights_only=True)
    missing = body.load_state_dict({name: one for name, one in state.items() if not name.startswith("_fc")})
    assert not missing.missing_keys and not missing.unexpected_keys
    model = nn.Sequential(body, create_head(FEATURES, loaders.c))
    learner = Learner(loaders, model, metrics=accuracy, splitter=split)
    with learner.no_bar():
        learner.fine_tune(epochs, freeze_epochs=1)
        plain = float(learner.validate()[1])
        scores, truth = learner.tta()
    tta = float((scores.argmax(dim=1) == truth).float().mean())
    print(json.dumps({"accuracy": plain, "accuracy_with_tta": tta}))


if __name__ == "__main__":
    main()
