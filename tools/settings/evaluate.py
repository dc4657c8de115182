"""Settings of `regard evaluate`, `regard score` and `regard build-pope`."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal

from .train import ImageSettings

__all__ = ["BuildPopeSettings", "EvaluateSettings", "ScoreSettings"]


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """Measure a classifier or restorer of images, or fixes of a vision-language model; by default of the embedded one.

    Attributes:
        model: folder that `regard train` exported (OUT/model), or the OUT folder itself; with a benchmark, a
            vision-language model as in `regard ask`; without both, the embedded one; hat_photo_x2 is the embedded
            restorer.
        data: as in `regard train`; with a benchmark, the folder that has its files; for a restorer a folder of good
            images, by default the photographs that the embedded one never saw.
        out: folder of results. The same command again goes on where a run was stopped.
        batch_size: images, or questions, in one pass; by default 128, or 8 for a vision-language model.
        benchmark: what a vision-language model is asked: pope, chair, amber, mme, hallusionbench, mmhal, captioning,
            with options behind a colon (pope:parser=words), or package.module:Class; may be given several times; by
            default the rendered scenes scene_captions and scene_questions.
        fix: methods beside the baseline, as in `regard ask`; may be given several times; by default a set of methods
            and controls.
        image_folder: where the images of a benchmark are; by default in the data.
        missing_images: whether an image that is missing or cannot be read stops the run, or is skipped and counted.
        synonyms: the authors' synonyms.txt for chair, in place of our own table.
        limit: ask this many questions, or restore this many images only, the first ones; 0 is all.
        max_new_tokens: longest answer, in tokens; by default that of the benchmark.
        temperature: 0 takes the likeliest word; above, words are drawn.
        top_p: draw from the likeliest words that together have this probability.
        beams: width of the beam search.
        seed: of draws, scenes and resamples.
        scenes: rendered scenes to caption; a quarter of them are asked 18 questions each.
        resamples: of the bootstrap, over images.
        costs: questions on which time and memory are measured; 0 measures nothing.
        attention_samples: questions for which attention is drawn; 0 draws none.
        shard: I/N answers part I (from 1) of N only, for array jobs; `regard score OUT` joins the parts.
        engine: local uses processes of this machine; ray uses those of a Ray cluster.
        workers: processes that answer at once, each a shard of the samples.
        device: for a vision-language model or a restorer, cpu, cuda, cuda:1 ...; by default a GPU of CUDA if there is
            one.
        dtype: type of the weights of a vision-language model, as in `regard ask`.
        split: part of the data that a classifier is measured on.
        low: for a restorer, folder of the spoilt partners of `data`; null spoils its images.
        degradation: for a restorer, what spoils; null is bicubic where it enlarges.
        degradation_options: the degradation's own options, as restoration.options of `regard train`.
        images: how images are read for a classifier; what is null comes from the model.
        precision: number format of a classifier's computation.
        accelerator: for a classifier, cpu, gpu, mps ..., or auto.
    """

    model: str | None = None
    data: str | None = None
    out: str = "runs/evaluate"
    batch_size: int | None = None
    benchmark: list[str] = field(default_factory=list, metadata={"repeated": True})
    fix: list[str] = field(default_factory=list, metadata={"repeated": True})
    image_folder: str | None = None
    missing_images: Literal["stop", "skip"] = "stop"
    synonyms: str = ""
    limit: int = 0
    max_new_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    beams: int = 1
    seed: int = 0
    scenes: int = 200
    resamples: int = 10_000
    costs: int = 8
    attention_samples: int = 2
    shard: str = "1/1"
    engine: Literal["local", "ray"] = "local"
    workers: int = 1
    device: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    split: Literal["train", "val", "test"] = "test"
    low: str | None = None
    degradation: Literal["bicubic", "noise", "jpeg", "real_world", "albumentations"] | None = None
    degradation_options: dict[str, Any] = field(default_factory=dict)
    images: ImageSettings = field(default_factory=ImageSettings)
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "bf16-true"] = "32-true"
    accelerator: str = "auto"


@dataclass(frozen=True)
class ScoreSettings:
    """Score answers that are there already, without a model: of `regard evaluate`, or files of answers.

    Attributes:
        folder: of results: the `--out` of `regard evaluate`, or where those of answer files go.
        answers: NAME=FILE, a file of answers to the benchmark; may be given several times. A line of JSON has an id
            (id, question_id or image_id) and an answer (answer, response, caption or text); without ids, as many
            answers as questions, in their order. The first file is the baseline.
        benchmark: of the answer files, as in `regard evaluate`; for answers to a benchmark of your own its name again.
        data: of the benchmark, for answer files.
        image_folder: where images for the report are; by default as the evaluation had it.
        synonyms: as in `regard evaluate`.
        arm: arms that are scored, the baseline first; may be given several times; by default all.
        resamples: of the bootstrap, over images.
        seed: of the resamples.
        export: form in which answers are written for judges elsewhere, into FOLDER/BENCHMARK/export: judge, chair,
            amber or mmhal.
        judgements: NAME=FILE, what a judge replied to the answers of an arm, for mmhal; may be given several times.
        json: print the summary as JSON.
    """

    folder: str
    _: KW_ONLY
    answers: list[str] = field(default_factory=list, metadata={"repeated": True})
    benchmark: str | None = None
    data: str | None = None
    image_folder: str | None = None
    synonyms: str = ""
    arm: list[str] = field(default_factory=list, metadata={"repeated": True})
    resamples: int = 10_000
    seed: int = 0
    export: Literal["judge", "chair", "amber", "mmhal"] | None = None
    judgements: list[str] = field(default_factory=list, metadata={"repeated": True})
    json: bool = False


@dataclass(frozen=True)
class BuildPopeSettings:
    """Build POPE's three splits for annotated images of your own.

    Attributes:
        instances: a COCO-style file of instances.
        out: folder for the three files.
        images: how many are drawn, of those with as many classes as there are pairs.
        pairs: questions with yes about an image, and with no.
        seed: of the draws.
        imange: misspell "image" behind a vowel, as the published files do.
    """

    instances: str
    _: KW_ONLY
    out: str = "runs/pope"
    images: int = 500
    pairs: int = 3
    seed: int = 0
    imange: bool = False
