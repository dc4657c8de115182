"""`regard evaluate lvlm`: interventions compared with the baseline on the same samples, with paired statistics.

The output folder holds settings.yaml and what `regard score` makes of the rest (summary.json, report.html); and for
each benchmark a folder with samples.jsonl (the list of questions), answers/ARM.jsonl (a line an answer, written as soon
as it is there; the same command goes on after the last of them), costs.json and attention/.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from PIL import Image

from ...mllm import LVLM, describe, parse_interventions
from ...mllm.evaluation.arm_settings import Arm, arm_file_name
from ...mllm.evaluation.runner import Decoding, SkippedImage, answer_samples
from ...mllm.evaluation.sample_file import SampleFile, write_samples
from ...mllm.loading import model_revision, model_source
from ...mllm.session.contract import Intervention
from ...whole_files import write_atomically
from ..look.ask import quiet_loading
from ..run.devices import choose_device
from ..run.progress import progress
from ..run.run_folder import open_run
from ..run.shards import parse_shard
from ..run.workers import run_tasks
from ..settings import EvaluateLvlmSettings
from .attention_samples import draw_attention_samples
from .benchmarks import LONGEST, LONGEST_DESCRIPTION, ImageOpener, image_opener, options_of, parse_benchmark
from .costs import cost_table, measure_costs
from .scene_benchmarks import SCENE_BENCHMARKS
from .score import finish

__all__ = ["FIXES", "run"]

#: What is compared where no fix is named: interventions, and controls without any idea behind them.
FIXES = [
    "var",
    "vhr(alpha=1.5)",
    'rebalance(alpha=0.4, beta=0.2, gamma=1, layers="all")',
    'pai(gamma=1, layers="all")',
    "vcd",
    "vdd(alpha=0.5)",
    "end_bias(amount=1)",
    "word_bias(amount=-1)",
    "random_heads(alpha=1.5)",
    "image_scale(factor=2)",
]
_BATCH = 8
_EMBEDDED_BATCH = 100
_COST_TOKENS = 16


@dataclass(frozen=True)
class Prepared:
    """A benchmark, ready to be asked."""

    name: str
    folder: Path
    samples: SampleFile
    open_image: ImageOpener
    max_new_tokens: int


def run(settings: EvaluateLvlmSettings) -> int:
    """Answer what is not answered yet, measure costs, score, print and write.

    Args:
        settings: see `EvaluateLvlmSettings`.

    Returns:
        0, or 1 when an intervention did nothing, or images were skipped.

    Raises:
        ValueError: an unknown benchmark or fix, data or images that are missing, a model that cannot be loaded, or a
            folder that has the results of other settings.
        OSError: the output folder cannot be written.
    """
    shard, shards = parse_shard(settings.shard)
    interventions = _interventions(settings.fix or FIXES)
    out = Path(settings.out)
    with open_run(replace(settings, shard="1/1", fix=[*interventions][1:]), shared=True):  # arms have their own locks
        asked = [_prepared(settings, text, out) for text in settings.benchmark or list(SCENE_BENCHMARKS)]
        if settings.workers > 1 or settings.engine == "ray":
            _run_shards(settings)
        else:
            _answer(settings, asked, interventions, shard, shards)
        if shards > 1:
            sys.stderr.write(f"part {shard + 1} of {shards} is done; when all are, regard score {out} joins them\n")
            return 0
        return finish(out, [one.name for one in asked], list(interventions), settings.resamples, settings.seed)


def _run_shards(settings: EvaluateLvlmSettings) -> None:
    """Answer a shard in each worker; all write to one folder, so it has to be on a disk that they share."""
    own = replace(settings, out=str(Path(settings.out).resolve()), engine="local", workers=1)
    shards = [f"{number}/{settings.workers}" for number in range(1, settings.workers + 1)]
    tasks = {f"shard {shard}": (replace(own, shard=shard),) for shard in shards}
    options: dict[str, Any] = {"engine": settings.engine, "workers": settings.workers}
    failed = run_tasks(run, tasks, divide_gpus=settings.device is None, **options)
    if failed:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in sorted(failed.items()))
        raise ValueError(f"{len(failed)} of {len(tasks)} shards failed ({reasons}). Run the same command to resume")


def _answer(
    settings: EvaluateLvlmSettings,
    asked: Sequence[Prepared],
    interventions: Mapping[str, Sequence[Intervention]],
    shard: int,
    shards: int,
) -> None:
    """Everything that needs the model."""
    model = settings.model
    with quiet_loading():
        lvlm = LVLM.load(model, device=choose_device(settings.device), dtype=settings.dtype)
    revision = model_revision(model_source(model), lvlm.model)
    prompt = lvlm.prompt_batch([Image.new("RGB", (64, 64))], ["{question}"]).texts[0]
    for one in asked:
        decoding = _decoding(settings, one)
        arms = {arm_file_name(intervention): own for intervention, own in interventions.items()}
        stored = {
            arm_file_name(intervention): Arm(
                benchmark=f"{one.samples.name} {json.dumps(one.samples.options, sort_keys=True)} {one.samples.hash}",
                model=model,
                revision=revision,
                intervention=intervention,
                prompt=prompt,
                decoding={**asdict(decoding), "dtype": str(lvlm.model.dtype), "device": lvlm.model.device.type},
                code=json.dumps(versions(), sort_keys=True),
            )
            for intervention in interventions
        }
        with progress(f"{one.name}: questions, {len(arms)} arms", len(one.samples)) as step:
            skipped_images = answer_samples(
                lvlm,
                one.samples,
                one.open_image,
                arms,
                stored,
                one.folder / "answers",
                decoding,
                shard=shard,
                shards=shards,
                skip_unreadable=settings.missing_images == "skip",
                step=step,
            )
        _note_skipped(one.folder, skipped_images, shard, shards)
        if shard == 0 and settings.costs:
            _measure(lvlm, one, interventions, settings.costs, decoding.max_new_tokens)
        if shard == 0 and settings.attention_samples and decoding.beams == 1:
            draw_attention_samples(
                lvlm, one.samples, one.open_image, interventions, one.folder, settings.attention_samples, decoding
            )


def versions() -> dict[str, str]:
    """Of what an answer depends on."""
    return {name: version(name) for name in ("regard", "torch", "transformers")}


def _interventions(fixes: Sequence[str]) -> dict[str, tuple[Intervention, ...]]:
    """Text form -> interventions, the baseline first; two ways to write the same are one."""
    found: dict[str, tuple[Intervention, ...]] = {"": ()}
    for fix in fixes:
        if fix != "none":
            own = parse_interventions(fix)
            found[describe(own)] = own
    return found


def _prepared(settings: EvaluateLvlmSettings, text: str, out: Path) -> Prepared:
    scenes = text.partition(":")[0] in SCENE_BENCHMARKS
    if scenes:  # a quarter of the scenes has as many questions: 18 each
        share = 1 if text.startswith("scene_captions") else 4
        more: dict[str, Any] = {"scenes": max(2, settings.scenes // share), "seed": settings.seed + 1}
    else:
        more = {"synonyms": settings.synonyms or "", "seed": settings.seed}
    name, benchmark = parse_benchmark(text, **more)
    data = Path(settings.data or "")
    samples = benchmark.samples(data)[: settings.limit or None]
    images = Path(settings.image_folder) if settings.image_folder else data if data.is_dir() else data.parent
    open_image, missing = image_opener(benchmark, samples, images)
    if missing:
        about = sum(sample.image in set(missing) for sample in samples)
        problem = (
            f"{len(missing)} images are not in {images}: {', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''} "
            f"({about} of {len(samples)} questions of {name})"
        )
        if settings.missing_images == "stop" or about == len(samples):
            raise ValueError(f"{problem}. Give --image_folder, or --missing_images skip to continue without them")
        sys.stderr.write(f"{problem}; they are skipped\n")
    folder = out / re.sub(r"[^\w.-]", "-", name)
    written = write_samples(folder / "samples.jsonl", name, options_of(benchmark), samples)
    longest = settings.max_new_tokens or LONGEST.get(name, LONGEST_DESCRIPTION)
    return Prepared(name, folder, written, open_image, longest)


def _decoding(settings: EvaluateLvlmSettings, asked: Prepared) -> Decoding:
    usual = _EMBEDDED_BATCH if settings.model == "embedded" else _BATCH
    return Decoding(
        max_new_tokens=asked.max_new_tokens,
        temperature=settings.temperature,
        top_p=settings.top_p,
        beams=settings.beams,
        seed=settings.seed,
        batch_size=settings.batch_size or usual,
    )


def _note_skipped(folder: Path, skipped_images: Sequence[SkippedImage], shard: int, shards: int) -> None:
    path = folder / (f"skipped_images.{shard}-of-{shards}.json" if shards > 1 else "skipped_images.json")
    if skipped_images:
        write_atomically(path, json.dumps([asdict(one) for one in skipped_images], indent=1))
    else:
        path.unlink(missing_ok=True)


def _measure(
    lvlm: LVLM, asked: Prepared, interventions: Mapping[str, Sequence[Intervention]], count: int, longest: int
) -> None:
    """Costs on the first questions whose images can be read; what was measured with these arms stays."""
    path, arms = (
        asked.folder / "costs.json",
        {intervention or "none": own for intervention, own in interventions.items()},
    )
    if path.is_file() and set(json.loads(path.read_text(encoding="utf-8"))["arms"]) >= set(arms):
        return
    prompts = []
    for sample in asked.samples:
        try:
            prompt = lvlm.prompt_batch([asked.open_image(sample)], [sample.question])
        except ValueError:
            continue  # named where it was asked
        prompts.append((prompt.inputs(), prompt))
        if len(prompts) == count + 1:
            break
    if len(prompts) > 1:
        tokens = max(2, min(_COST_TOKENS, longest))
        costs = measure_costs(lvlm.model, prompts, arms, tokens)
        write_atomically(path, json.dumps(cost_table(costs, tokens, str(lvlm.model.device)), indent=1))
