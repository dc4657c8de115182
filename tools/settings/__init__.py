"""What each job can be told: frozen, torch-free dataclasses."""

from .ask import AskSettings, SinksSettings
from .benchmark import BenchmarkSettings
from .convert import ConvertSettings
from .demo import DemoSettings
from .doctor import DoctorSettings, ListSettings
from .evaluate import BuildPopeSettings, EvaluateSettings, ScoreSettings
from .restore import RestoreSettings
from .slide import SlideSettings
from .train import AugmentationSettings, BackboneSettings, ImageSettings, OptimizerSettings, TrainSettings
from .train_bags import AemSettings, BagSettings, HeadSettings
from .train_lvlm import TrainLvlmSettings
from .train_restoration import RestorationSettings
from .view import ViewSettings

__all__ = [
    "AemSettings",
    "AskSettings",
    "AugmentationSettings",
    "BackboneSettings",
    "BagSettings",
    "BenchmarkSettings",
    "BuildPopeSettings",
    "ConvertSettings",
    "DemoSettings",
    "DoctorSettings",
    "EvaluateSettings",
    "HeadSettings",
    "ImageSettings",
    "ListSettings",
    "OptimizerSettings",
    "RestorationSettings",
    "RestoreSettings",
    "ScoreSettings",
    "SinksSettings",
    "SlideSettings",
    "TrainLvlmSettings",
    "TrainSettings",
    "ViewSettings",
]
