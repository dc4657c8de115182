from .bicubic import Degradation as Degradation
from .crops import TrainingCrops as TrainingCrops
from .crops import WholeImages as WholeImages
from .data_module import RestorationData as RestorationData
from .degradations import DEGRADATIONS as DEGRADATIONS
from .degradations import build_degradation as build_degradation
from .image_pairs import open_hq_images as open_hq_images
from .imresize import resize as resize
from .photographs import HELD_OUT as HELD_OUT
from .photographs import PHOTOGRAPHS as PHOTOGRAPHS
from .photographs import photograph as photograph

__all__ = [
    "DEGRADATIONS",
    "HELD_OUT",
    "PHOTOGRAPHS",
    "Degradation",
    "RestorationData",
    "TrainingCrops",
    "WholeImages",
    "build_degradation",
    "open_hq_images",
    "photograph",
    "resize",
]
