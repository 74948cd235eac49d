"""The networks that torchvision lacks, in PyTorch, for zoo.py. Layers with weights have the names of Caffe's models."""

import torch
from torch.nn import Conv2d, Linear, Module
from torch.nn import functional as F

INCEPTION = {
    "3a": (192, 64, 96, 128, 16, 32, 32),
    "3b": (256, 128, 128, 192, 32, 96, 64),
    "4a": (480, 192, 96, 208, 16, 48, 64),
    "4b": (512, 160, 112, 224, 24, 64, 64),
    "4c": (512, 128, 128, 256, 24, 64, 64),
    "4d": (512, 112, 144, 288, 32, 64, 64),
    "4e": (528, 256, 160, 320, 32, 128, 128),
    "5a": (832, 256, 160, 320, 32, 128, 128),
    "5b": (832, 384, 192, 384, 48, 128, 128),
}


class Caffe(Module):
    """A network whose layers are called by name."""

    def layers(self, **modules):
        for name, module in modules.items():
            self.add_module(name, module)

    def __getitem__(self, name):
        return lambda x: F.relu(self._modules[name](x))


class AlexNet(Caffe):
    """Caffe's bvlc_alexnet, or CaffeNet, which pools before it normalises."""

    def __init__(self, classes, pool_first):
        super().__init__()
        self.pool_first = pool_first
        self.layers(
            conv1=Conv2d(3, 96, 11, stride=4),
            conv2=Conv2d(96, 256, 5, padding=2, groups=2),
            conv3=Conv2d(256, 384, 3, padding=1),
            conv4=Conv2d(384, 384, 3, padding=1, groups=2),
            conv5=Conv2d(384, 256, 3, padding=1, groups=2),
            fc6=Linear(9216, 4096),
            fc7=Linear(4096, 4096),
            fc8=Linear(4096, classes),
        )

    def norm_and_pool(self, x):
        steps = [lambda x: F.local_response_norm(x, 5, 1e-4, 0.75, 1.0), lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True)]
        for step in reversed(steps) if self.pool_first else steps:
            x = step(x)
        return x

    def forward(self, x):
        x = self.norm_and_pool(self["conv1"](x))
        x = self.norm_and_pool(self["conv2"](x))
        x = self["conv5"](self["conv4"](self["conv3"](x)))
        x = F.max_pool2d(x, 3, 2, ceil_mode=True).flatten(1)
        return self.fc8(self["fc7"](self["fc6"](x)))


class ZFNet512(Caffe):
    """The ONNX model zoo's zfnet512."""

    def __init__(self, classes):
        super().__init__()
        self.layers(
            conv1=Conv2d(3, 96, 7, stride=2),
            conv2=Conv2d(96, 256, 5, stride=2),
            conv3=Conv2d(256, 512, 3, padding=1),
            conv4=Conv2d(512, 512, 3, padding=1),
            conv5=Conv2d(512, 512, 3, padding=1),
            fc6=Linear(18432, 4096),
            fc7=Linear(4096, 1024),
            fc8=Linear(1024, classes),
        )

    def forward(self, x):
        for name in ["conv1", "conv2"]:
            x = F.max_pool2d(F.local_response_norm(self[name](x), 5, 5e-4, 0.75, 2.0), 3, 2)
        x = self["conv5"](self["conv4"](self["conv3"](x)))
        x = F.max_pool2d(x, 2, 2).flatten(1)
        return self.fc8(self["fc7"](self["fc6"](x)))


class NetworkInNetwork(Caffe):
    """The authors' model for ImageNet."""

    def __init__(self, classes):
        super().__init__()
        self.layers(
            conv1=Conv2d(3, 96, 11, stride=4),
            cccp1=Conv2d(96, 96, 1),
            cccp2=Conv2d(96, 96, 1),
            conv2=Conv2d(96, 256, 5, padding=2),
            cccp3=Conv2d(256, 256, 1),
            cccp4=Conv2d(256, 256, 1),
            conv3=Conv2d(256, 384, 3, padding=1),
            cccp5=Conv2d(384, 384, 1),
            cccp6=Conv2d(384, 384, 1),
            **{
                "conv4-1024": Conv2d(384, 1024, 3, padding=1),
                "cccp7-1024": Conv2d(1024, 1024, 1),
                "cccp8-1024": Conv2d(1024, classes, 1),
            },
        )

    def forward(self, x):
        for name in self._modules:
            if name.startswith("conv") and name != "conv1":
                x = F.max_pool2d(x, 3, 2, ceil_mode=True)
            x = self[name](x)
        return x.mean((2, 3))


class GoogLeNet(Caffe):
    """Caffe's bvlc_googlenet. Its answer is a dictionary with the side branches."""

    def __init__(self, classes):
        super().__init__()
        self.layers(
            **{
                "conv1/7x7_s2": Conv2d(3, 64, 7, stride=2, padding=3),
                "conv2/3x3_reduce": Conv2d(64, 64, 1),
                "conv2/3x3": Conv2d(64, 192, 3, padding=1),
                "loss3/classifier": Linear(1024, classes),
            }
        )
        for name, (inputs, one, reduce3, three, reduce5, five, projection) in INCEPTION.items():
            self.layers(
                **{
                    f"inception_{name}/1x1": Conv2d(inputs, one, 1),
                    f"inception_{name}/3x3_reduce": Conv2d(inputs, reduce3, 1),
                    f"inception_{name}/3x3": Conv2d(reduce3, three, 3, padding=1),
                    f"inception_{name}/5x5_reduce": Conv2d(inputs, reduce5, 1),
                    f"inception_{name}/5x5": Conv2d(reduce5, five, 5, padding=2),
                    f"inception_{name}/pool_proj": Conv2d(inputs, projection, 1),
                }
            )
        for loss, channels in [("loss1", 512), ("loss2", 528)]:
            self.layers(
                **{
                    f"{loss}/conv": Conv2d(channels, 128, 1),
                    f"{loss}/fc": Linear(2048, 1024),
                    f"{loss}/classifier": Linear(1024, classes),
                }
            )

    def inception(self, name, x):
        layer = lambda part: self[f"inception_{name}/{part}"]
        return torch.cat(
            [
                layer("1x1")(x),
                layer("3x3")(layer("3x3_reduce")(x)),
                layer("5x5")(layer("5x5_reduce")(x)),
                layer("pool_proj")(F.max_pool2d(x, 3, 1, 1)),
            ],
            1,
        )

    def loss(self, name, x):
        x = self[f"{name}/conv"](F.avg_pool2d(x, 5, 3, ceil_mode=True))
        return self._modules[f"{name}/classifier"](self[f"{name}/fc"](x.flatten(1)))

    def forward(self, x):
        pool = lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True)
        norm = lambda x: F.local_response_norm(x, 5, 1e-4, 0.75, 1.0)
        x = norm(pool(self["conv1/7x7_s2"](x)))
        x = pool(norm(self["conv2/3x3"](self["conv2/3x3_reduce"](x))))
        x = pool(self.inception("3b", self.inception("3a", x)))
        outputs = {}
        for name in ["4a", "4b", "4c", "4d", "4e"]:
            x = self.inception(name, x)
            if name == "4a":
                outputs["aux1"] = self.loss("loss1", x)
            if name == "4d":
                outputs["aux2"] = self.loss("loss2", x)
        x = self.inception("5b", self.inception("5a", pool(x)))
        outputs["logits"] = self._modules["loss3/classifier"](x.mean((2, 3)))
        return outputs


class WithSideBranches(Module):
    """One of torchvision's networks, which compute their side branches in training only: here always."""

    def __init__(self, network, branches):
        super().__init__()
        self.network = network
        self.maps = {}
        self.branches = branches
        for layer, _ in branches.values():
            network.get_submodule(layer).register_forward_hook(self.keeper(layer))

    def keeper(self, layer):
        def keep(_module, _inputs, output):
            self.maps[layer] = output

        return keep

    def forward(self, x):
        logits = self.network(x)
        branches = {name: self.network.get_submodule(head)(self.maps[layer]) for name, (layer, head) in self.branches.items()}
        return {"logits": logits, **branches}
