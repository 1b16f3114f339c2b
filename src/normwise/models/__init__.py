"""Networks with the norm as an argument and pixel standardization as their first layer."""

from ..registry import Registry
from .resnet import PreActResNet18 as PreActResNet18
from .resnet import ResNet as ResNet
from .resnet import ResNet18 as ResNet18
from .resnet import WideResNet as WideResNet
from .standardize import Standardize as Standardize
from .vgg import VGG as VGG

MODELS = Registry("model", __name__, vars())
