"""A GPU that only keeps track of shapes and devices: finds what one would refuse to record."""

from collections import Counter
from contextlib import contextmanager

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

GPU = torch.device("cuda", 0)


class Recording(TorchDispatchMode):
    """Refuses tensors of the host; values and shapes that depend on values the mode below refuses.

    Attributes:
        count: of each operation.
    """

    def __init__(self):
        super().__init__()
        self.count = Counter()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        found = operation(*args, **(kwargs or {}))
        self.count[str(operation)] += 1
        for x in tree_leaves((args, kwargs, found)):
            if isinstance(x, torch.Tensor) and x.device.type == "cpu":
                raise AssertionError(f"{operation} has a tensor of the host")
        return found


@contextmanager
def fake_gpu():
    """Within it tensors have no values, and may be on a GPU that is not there."""
    with FakeTensorMode():
        yield GPU


def there(tensor):
    """What has the shape and type of a tensor of the host."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=GPU)


def moved(model):
    """A model of the host with all its tensors there."""
    for module in model.modules():
        for name, tensor in module.named_buffers(recurse=False):
            module._buffers[name] = there(tensor)
        for name, tensor in module.named_parameters(recurse=False):
            module._parameters[name] = torch.nn.Parameter(there(tensor), tensor.requires_grad)
    return model
