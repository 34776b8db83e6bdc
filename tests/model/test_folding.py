import copy
import warnings

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from scrd.model.folding import fold_batchnorm
from scrd.model.teacher import build_teacher


def stirred(module):
    """With statistics and weights of BatchNorm that are not those of the start."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d) and norm.track_running_stats:
            norm.running_mean.uniform_(-1, 1)
            norm.running_var.uniform_(0.2, 3)
            if norm.affine:
                norm.weight.data.uniform_(-2, 2)
                norm.bias.data.uniform_(-1, 1)
    return module.eval()


def norms(module):
    return [name for name, m in module.named_modules() if isinstance(m, nn.BatchNorm2d)]


class Net(nn.Module):
    """Put together of what ``layers`` says, one after the other; gives one map."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return [x]


class Twice(Net):
    """Uses what the convolution puts out twice, which no hook sees."""

    def forward(self, x):
        x = self.layers[0](x)
        return [self.layers[1](x) + x]


class Standardised(nn.Conv2d):
    """A convolution that changes its weights on the way."""

    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        weight = weight / (weight.std((1, 2, 3), keepdim=True) + 1e-6)
        return nn.functional.conv2d(x, weight, self.bias)


def same(net, x):
    torch.manual_seed(3)
    stirred(net)
    expected = [u.clone() for u in net(x)]
    pairs = zip(fold_batchnorm(net)(x), expected, strict=True)
    return all(torch.allclose(u, v, rtol=1e-4, atol=1e-4) for u, v in pairs)


X = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "net, left",
    [
        (Net(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()), 0),
        (Net(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False, eps=0.1)), 0),
        (Net(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)), 1),
        (Net(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)), 2),
        (Twice(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), 1),
        (Net(Standardised(3, 4, 3), nn.BatchNorm2d(4)), 1),
        (Net(nn.Conv2d(3, 4, 3, groups=1, bias=False), nn.BatchNorm2d(4)), 0),
    ],
)
def test_features_stay_and_what_cannot_be_folded_stays_too(net, left):
    assert same(net, X)
    assert len(norms(net)) == left


def test_a_layer_used_twice_is_left_alone():
    convolution, norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
    net = Net(convolution, norm, convolution, norm)
    assert same(net, X)
    assert norms(net)


def test_an_activation_with_weights_keeps_its_precision():
    norm = BatchNormAct2d(4, act_layer=nn.PReLU)
    net = Net(nn.Conv2d(3, 4, 3), norm)
    assert same(net, X) and not norms(net)
    assert {p.dtype for p in net.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18", "wide_resnet50_2"])
def test_a_teacher_answers_as_with_batchnorm_and_keeps_its_tensors(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = stirred(build_teacher(name, "random", trainable=True))
        folded = build_teacher(name, "deferred")
    assert not norms(folded) and norms(whole)
    folded.backbone = fold_batchnorm(copy.deepcopy(whole.backbone))
    built = build_teacher(name, "deferred")
    built.load_state_dict(folded.state_dict())
    for u, v, w in zip(folded(X), whole(X), built(X), strict=True):
        assert torch.allclose(u, v, rtol=1e-3, atol=1e-4 * float(v.abs().max()))
        assert torch.equal(u, w)
    assert not any(p.requires_grad for p in built.parameters())
