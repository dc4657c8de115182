"""Settings of `regard evaluate`, `regard score` and `regard build-pope`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from .lvlm import LvlmSettings
from .names import BenchmarkText, InterventionText
from .resuming import EXTEND, FREE
from .train import ImageSettings
from .types import (
    Checked,
    ExistingFile,
    ExistingFolder,
    ExistingPath,
    HighQualityImages,
    ImageSource,
    NamedFile,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    ShardText,
    Within,
)

__all__ = [
    "BuildPopeSettings",
    "EvaluateClassifierSettings",
    "EvaluateLvlmSettings",
    "EvaluateRestorerSettings",
    "ScoreSettings",
]


@dataclass(frozen=True, kw_only=True)
class EvaluateClassifierSettings(Checked):
    """Measure a trained image classifier on any data with the same classes.

    Attributes:
        model: folder that `regard train classifier` exported (OUT/model), or OUT itself.
        data: as in `regard train classifier`.
        split: part of the data that is measured.
        out: folder of results.
        batch_size: images in one pass.
        precision: number format of the computation.
        accelerator: cpu, gpu, mps, or auto.
        images: how images are read; what is null comes from the model.
    """

    model: ExistingFolder
    data: ImageSource = "digits"
    split: Literal["train", "val", "test"] = "test"
    out: str = field(default="runs/evaluate", metadata=FREE)
    batch_size: PositiveInt = field(default=128, metadata=FREE)
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "bf16-true"] = "32-true"
    accelerator: str = field(default="auto", metadata=FREE)
    images: ImageSettings = field(default_factory=ImageSettings)


@dataclass(frozen=True, kw_only=True)
class EvaluateRestorerSettings(Checked):
    """Measure PSNR and SSIM of an image restorer, compared with bicubic interpolation or the degraded image itself.

    Attributes:
        model: folder that `regard train restorer` exported, or OUT itself; or the name of an embedded restorer.
        data: folder of high-quality images; photographs are those that the embedded restorer never saw.
        lq: folder of their low-quality partners; by default the images of --data are degraded.
        degradation: how they are degraded; by default bicubic if the model enlarges.
        degradation_options: options of the degradation, such as '{sigma: 25}'.
        limit: number of images, from the first; 0 is all.
        seed: random seed of the degradation.
        out: folder of results.
        device: cpu, cuda, cuda:N or mps; by default CUDA if available.
    """

    model: str = "hat_photo_x2"
    data: HighQualityImages = "photographs"
    lq: ExistingFolder | None = None
    degradation: Literal["bicubic", "noise", "jpeg", "real_world", "albumentations"] | None = None
    degradation_options: dict[str, Any] = field(default_factory=dict)
    limit: NonNegativeInt = 0
    seed: NonNegativeInt = 0
    out: str = field(default="runs/evaluate", metadata=FREE)
    device: str | None = field(default=None, metadata=FREE)

    def check_together(self) -> None:
        """Images that are degraded already have no degradation."""
        if self.lq is not None and self.degradation is not None:
            raise ValueError("--lq are images that are degraded already; leave --degradation out, or --lq")


@dataclass(frozen=True, kw_only=True)
class EvaluateLvlmSettings(LvlmSettings):
    """Compare interventions with a vision-language model's baseline on the same samples.

    Attributes:
        fix: interventions of one arm, compared with the baseline, such as 'vhr(alpha=1.5)'; repeat for further arms. By
            default a set of interventions and controls.
        benchmark: pope, chair, amber, mme, hallusionbench, mmhal or captioning, with options such as
            'pope(parser="words")', or package.module:Class; may be repeated. By default scene_captions and
            scene_questions, which are rendered.
        data: folder or file of the benchmark.
        image_folder: folder of the benchmark's images; by default that of the data.
        missing_images: stop at images that are missing or unreadable, or skip and count them.
        synonyms: the authors' synonyms.txt for chair, instead of our own table.
        scenes: number of rendered scenes to caption; a quarter of them gets 18 questions each.
        limit: number of samples of each benchmark, from the first; 0 is all.
        max_new_tokens: maximum length of an answer in tokens; by default that of the benchmark.
        temperature: 0 decodes greedily; above 0, tokens are sampled.
        top_p: sample from the most probable tokens with this total probability.
        beams: width of the beam search.
        seed: random seed of sampling, scenes and resamples.
        resamples: bootstrap resamples over images.
        costs: number of samples on which time and memory are measured; 0 measures nothing.
        attention_samples: number of samples whose attention is plotted; 0 plots none.
        out: folder of results; the same command resumes a stopped run.
        batch_size: samples in one pass; by default 8, or 100 with the embedded model.
        shard: I/N answers part I (from 1) of N only; `regard score OUT` joins the parts.
        engine: local uses processes of this machine; ray uses those of a Ray cluster.
        workers: processes that answer at once, each a shard of the samples.
    """

    HEADINGS: ClassVar[dict[str, str]] = {
        "model": "what is compared",
        "benchmark": "samples",
        "max_new_tokens": "decoding",
        "resamples": "measurements",
        "out": "the run",
    }

    fix: list[InterventionText] = field(default_factory=list, metadata=EXTEND | {"repeated": True})
    benchmark: list[BenchmarkText] = field(default_factory=list, metadata=EXTEND | {"repeated": True})
    data: ExistingPath | None = None
    image_folder: ExistingFolder | None = field(default=None, metadata=FREE)
    missing_images: Literal["stop", "skip"] = field(default="stop", metadata=FREE)
    synonyms: ExistingFile | None = None
    scenes: Annotated[int, Within(2)] = 200
    limit: NonNegativeInt = 0
    max_new_tokens: PositiveInt | None = None
    temperature: NonNegativeFloat = 0.0
    top_p: Annotated[float, Within(0, 1, open_low=True)] = 1.0
    beams: PositiveInt = 1
    seed: NonNegativeInt = 0
    resamples: PositiveInt = field(default=10_000, metadata=EXTEND)
    costs: NonNegativeInt = field(default=8, metadata=EXTEND)
    attention_samples: NonNegativeInt = field(default=2, metadata=EXTEND)
    out: str = field(default="runs/evaluate", metadata=FREE)
    batch_size: PositiveInt | None = None
    shard: ShardText = field(default="1/1", metadata=FREE)
    engine: Literal["local", "ray"] = field(default="local", metadata=FREE)
    workers: PositiveInt = field(default=1, metadata=FREE)

    def check_together(self) -> None:
        """Benchmarks have their files, and workers get shards of their own."""
        published = [text for text in self.benchmark if not text.startswith("scene_")]
        if published and self.data is None:
            raise ValueError(f"the benchmark {published[0]} needs its files: give --data FOLDER")
        if (self.workers > 1 or self.engine == "ray") and self.shard != "1/1":
            raise ValueError("--workers and --engine ray make the shards themselves; omit --shard or these")


@dataclass(frozen=True, kw_only=True)
class ScoreSettings(Checked):
    """Score answers without a model: those of `regard evaluate lvlm`, or files of answers.

    Attributes:
        folder: the --out of `regard evaluate lvlm`, or a folder for the results of answer files.
        answers: NAME=FILE, a file of answers to the benchmark, the baseline first; may be repeated. A JSON line has an
            id (id, question_id or image_id) and an answer (answer, response, caption or text); without ids, there are
            as many answers as samples, in their order.
        benchmark: benchmark of the answer files, as in `regard evaluate lvlm`; or the name of your own benchmark.
        data: folder or file of the benchmark, for answer files.
        image_folder: folder of images for the report; by default that of the evaluation.
        synonyms: the authors' synonyms.txt for chair, instead of our own table.
        arm: arm to score, the baseline first; may be repeated. By default all.
        resamples: bootstrap resamples over images.
        seed: random seed of the resamples.
        export: form in which answers are exported for judges, to FOLDER/BENCHMARK/export.
        judgements: NAME=FILE, a judge's replies to the answers of an arm, for mmhal; may be repeated.
        json: print the summary as JSON.
    """

    folder: str = field(metadata={"positional": True})
    answers: list[NamedFile] = field(default_factory=list, metadata={"repeated": True})
    benchmark: BenchmarkText | None = None
    data: ExistingPath | None = None
    image_folder: ExistingFolder | None = None
    synonyms: ExistingFile | None = None
    arm: list[str] = field(default_factory=list, metadata={"repeated": True})
    resamples: PositiveInt = 10_000
    seed: NonNegativeInt = 0
    export: Literal["judge", "chair", "amber", "mmhal"] | None = None
    judgements: list[NamedFile] = field(default_factory=list, metadata={"repeated": True})
    json: bool = False

    def check_together(self) -> None:
        """Answers are in the folder, or in files given with the questions."""
        if self.answers and (self.benchmark is None or self.data is None):
            raise ValueError("files of answers need the questions: give --benchmark NAME and --data FOLDER")
        if not self.answers and not Path(self.folder).is_dir():
            raise ValueError(
                f"there is no folder {self.folder}; give the --out of regard evaluate lvlm, or files with --answers"
            )


@dataclass(frozen=True, kw_only=True)
class BuildPopeSettings(Checked):
    """Build the three splits of POPE from your own annotated images.

    Attributes:
        instances: COCO-style file of instances.
        out: folder for the three files.
        images: number of images, drawn from those with at least this many classes.
        pairs: questions with the answer yes for each image; the same number has the answer no.
        seed: random seed of the draws.
        imange: misspell "image" after a vowel, as the published files do.
    """

    instances: ExistingFile = field(metadata={"positional": True})
    out: str = "runs/pope"
    images: PositiveInt = 500
    pairs: PositiveInt = 3
    seed: NonNegativeInt = 0
    imange: bool = False
