"""Networks with the norm as an argument and pixel standardization as their first layer."""

from ..registry import Registry
from .convnext import ConvNeXt as ConvNeXt
from .inflation import inflate as inflate
from .nfresnet import NFResNet as NFResNet
from .nfresnet import NFResNet26 as NFResNet26
from .nfresnet import NFResNet50 as NFResNet50
from .resnet import PreActResNet18 as PreActResNet18
from .resnet import ResNet as ResNet
from .resnet import ResNet18 as ResNet18
from .resnet import WideResNet as WideResNet
from .resnet3d import FrameResNet as FrameResNet
from .resnet3d import R2Plus1D as R2Plus1D
from .resnet3d import ResNet3D as ResNet3D
from .standardize import Standardize as Standardize
from .vgg import VGG as VGG
from .views import OverViews as OverViews
from .vit import ViT as ViT

MODELS = Registry("model", __name__, vars())
