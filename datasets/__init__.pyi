from .albumentations_list import AlbumentationsList as AlbumentationsList
from .classification import ClassificationData as ClassificationData
from .image_reading import UnreadableImageError as UnreadableImageError
from .image_reading import read_image as read_image
from .labelled_images import SPLITS as SPLITS
from .labelled_images import LabelledImages as LabelledImages
from .scenes import Scene as Scene
from .scenes import SceneObject as SceneObject
from .scenes import Scenes as Scenes
from .sources import SOURCES as SOURCES
from .sources import open_images as open_images
from .splits import stratified_split as stratified_split
from .transforms import eval_transform as eval_transform
from .transforms import train_transform as train_transform

__all__ = [
    "SOURCES",
    "SPLITS",
    "AlbumentationsList",
    "ClassificationData",
    "LabelledImages",
    "Scene",
    "SceneObject",
    "Scenes",
    "UnreadableImageError",
    "eval_transform",
    "open_images",
    "read_image",
    "stratified_split",
    "train_transform",
]
