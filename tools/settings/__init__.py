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
    "RestorationSettings",
    "RestoreSettings",
    "ScoreSettings",
    "SinksSettings",
    "SlideSettings",
    "TrainLvlmSettings",
    "TrainSettings",
    "ViewSettings",
]
