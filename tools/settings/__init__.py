"""Settings of the tasks: frozen dataclasses, one a task, without torch."""

from .ask import AskSettings, SinksSettings
from .benchmark import (
    BenchmarkBlocksSettings,
    BenchmarkHeadsSettings,
    BenchmarkHostsSettings,
    BenchmarkLvlmSettings,
    BenchmarkRestorersSettings,
    BenchmarkSlidesSettings,
)
from .convert import ConvertSettings
from .demo import DemoClassifierSettings, DemoMilSettings, DemoRestorationSettings
from .evaluate import (
    BuildPopeSettings,
    EvaluateClassifierSettings,
    EvaluateLvlmSettings,
    EvaluateRestorerSettings,
    ScoreSettings,
)
from .info import DoctorSettings, ListSettings
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
    "BenchmarkBlocksSettings",
    "BenchmarkHeadsSettings",
    "BenchmarkHostsSettings",
    "BenchmarkLvlmSettings",
    "BenchmarkRestorersSettings",
    "BenchmarkSlidesSettings",
    "BuildPopeSettings",
    "ConvertSettings",
    "DemoClassifierSettings",
    "DemoMilSettings",
    "DemoRestorationSettings",
    "DoctorSettings",
    "EvaluateClassifierSettings",
    "EvaluateLvlmSettings",
    "EvaluateRestorerSettings",
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
