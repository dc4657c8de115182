"""What each job can be told: frozen, torch-free dataclasses."""

from .ask import AskSettings, SinksSettings
from .benchmark import BenchmarkSettings
from .convert import ConvertSettings
from .demo import DemoSettings
from .doctor import DoctorSettings, ListSettings
from .evaluate import BuildPopeSettings, EvaluateSettings, ScoreSettings
from .restore import RestoreSettings
from .slide import SlideSettings
from .train import BackboneSettings, ImageSettings, OptimizerSettings
from .train_classifier import AugmentationSettings, TrainClassifierSettings
from .train_lvlm_demo import TrainLvlmDemoSettings
from .train_mil import AemSettings, HeadSettings, TrainMilSettings
from .train_restorer import TrainRestorerSettings
from .view import ViewSettings

__all__ = [
    "AemSettings",
    "AskSettings",
    "AugmentationSettings",
    "BackboneSettings",
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
    "RestoreSettings",
    "ScoreSettings",
    "SinksSettings",
    "SlideSettings",
    "TrainClassifierSettings",
    "TrainLvlmDemoSettings",
    "TrainMilSettings",
    "TrainRestorerSettings",
    "ViewSettings",
]
