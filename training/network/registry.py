"""The pretrained networks of keras.applications, and how each wants its pixels; without Keras, for a quick --help."""

from typing import Literal

Preprocessing = Literal["inside", "tf", "torch", "caffe"]
"""``inside``: the network scales pixels itself; the others are the modes of Keras's ``preprocess_input``."""

IMAGENET_WEIGHTS, NO_WEIGHTS = "imagenet", "none"

BACKBONES: dict[str, Preprocessing] = {
    **dict.fromkeys(("ConvNeXtTiny", "ConvNeXtSmall", "ConvNeXtBase", "ConvNeXtLarge", "ConvNeXtXLarge"), "inside"),
    **dict.fromkeys(("DenseNet121", "DenseNet169", "DenseNet201"), "torch"),
    **dict.fromkeys((f"EfficientNetB{size}" for size in range(8)), "inside"),
    **dict.fromkeys((f"EfficientNetV2{size}" for size in ("B0", "B1", "B2", "B3", "S", "M", "L")), "inside"),
    **dict.fromkeys(("InceptionResNetV2", "InceptionV3", "MobileNet", "MobileNetV2"), "tf"),
    **dict.fromkeys(("MobileNetV3Large", "MobileNetV3Small"), "inside"),
    **dict.fromkeys(("NASNetLarge", "NASNetMobile"), "tf"),
    **dict.fromkeys(("ResNet50", "ResNet101", "ResNet152"), "caffe"),
    **dict.fromkeys(("ResNet50V2", "ResNet101V2", "ResNet152V2"), "tf"),
    **dict.fromkeys(("VGG16", "VGG19"), "caffe"),
    "Xception": "tf",
}
