"""Training of the scene model in four stages, with any number of processes that share each batch.

1. vision: the tower classifies the object of each patch; then it is frozen.
2. language: text only, in which every object occurs with its partner.
3. projector: image tokens are aligned with the embeddings of their objects, and those of background become sinks.
4. together: captions and questions about images; language model and projector are trained.

The data of a step depend on the seed, the stage, the step and the row, not on the number of processes. Every finished
stage is a file; an interrupted run resumes after the last one.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration

from ....datasets.scene_words import WORDS
from ....datasets.scenes import CLASSES, Scene, draw_scene
from ....whole_files import whole_file
from .lessons import ANSWERS, Lesson, image_lesson, pad, patch_targets, pixels, text_lesson
from .network import (
    SINK_DIMENSION,
    SINK_VALUE,
    WIDTH,
    build_scene_lvlm,
    guard_sink_dimension,
    plant_visual_sinks,
    project,
    see,
)

__all__ = ["STAGES", "Stage", "train_stages"]

BACKGROUND = len(CLASSES)
_ALIGNMENT_WEIGHT = 0.2
_SINK_WEIGHT = 20.0
_ANSWER_WEIGHT = 2.0
_LOG_EVERY = 25


@dataclass(frozen=True)
class Stage:
    """A training stage.

    Attributes:
        name: of the stage and its files.
        steps: optimiser steps.
        batch: rows per step, over all processes.
        rate: maximum learning rate; linear warm-up over a tenth of the steps, at most 100, then cosine decay.
        floor: final learning rate as a fraction of the maximum.
    """

    name: str
    steps: int
    batch: int
    rate: float
    floor: float = 0.0


STAGES = (
    Stage("vision", 600, 64, 1.5e-3),
    Stage("language", 200, 64, 2e-3, floor=0.1),
    Stage("projector", 150, 64, 2e-3),
    Stage("together", 1100, 32, 2e-3),
)

Loss = tuple[Tensor, dict[str, float]]


def train_stages(rank: int, out: Path, seed: int, steps_scale: float, workers: int, device: str) -> None:
    """Train all stages that are not finished, in one of the processes.

    Args:
        rank: index of this process, from 0.
        out: folder for the stages: NAME.safetensors and NAME.csv.
        seed: of weights and data.
        steps_scale: factor of the number of steps of every stage.
        workers: number of processes.
        device: cpu or cuda.

    Raises:
        OSError: a stage cannot be read or written.
        ValueError: the loss is no longer a number.
    """
    torch.set_num_threads(1)
    target = torch.device(device, rank % torch.cuda.device_count()) if device == "cuda" else torch.device(device)
    if workers > 1:
        meeting = dist.FileStore(str(out / "meeting"), workers)
        dist.init_process_group("gloo", store=meeting, rank=rank, world_size=workers)
    try:
        model: Any = build_scene_lvlm(seed)
        model.to(target)
        for number, stage in enumerate(STAGES):
            file = out / f"{stage.name}.safetensors"
            if file.exists():
                _read(file, model)
                continue
            trainer = _StageTrainer(number, stage, seed, rank, workers, target)
            rows = trainer.learn(model, max(1, round(stage.steps * steps_scale)))
            if rank == 0:
                _write(out, stage.name, model, rows)
            if workers > 1:
                dist.barrier()
    finally:
        if workers > 1:
            dist.destroy_process_group()


def _read(file: Path, model: nn.Module) -> None:
    try:
        missing, unknown = model.load_state_dict(load_file(file), strict=False)
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise OSError(
            f"{file} is damaged or does not fit this model ({reason}); remove it to repeat the stage"
        ) from error
    if unknown or set(missing) - {"lm_head.weight"}:
        raise OSError(f"{file} does not fit this model; remove it to repeat the stage")


def _write(out: Path, name: str, model: nn.Module, rows: list[dict[str, float]]) -> None:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [",".join(columns), *(",".join(f"{row.get(column, math.nan):.6g}" for column in columns) for row in rows)]
    (out / f"{name}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    weights = {key: value.cpu().contiguous() for key, value in model.state_dict().items() if key != "lm_head.weight"}
    file = out / f"{name}.safetensors"
    try:
        with whole_file(file) as partial:
            save_file(weights, partial)
    except SafetensorError as error:  # such as a full disk
        raise OSError(f"cannot write {file} ({error}); make room and run the same command again") from error


@dataclass(frozen=True)
class _StageTrainer:
    """One stage in one process."""

    number: int
    stage: Stage
    seed: int
    rank: int
    workers: int
    device: torch.device

    def learn(self, model: LlavaForConditionalGeneration, steps: int) -> list[dict[str, float]]:
        """Run all steps, in target; returns the logged rows."""
        parts = _parts(model)
        head = None
        if self.stage.name == "vision":
            with torch.random.fork_rng():
                torch.manual_seed(self.seed)
                head = nn.Linear(WIDTH, BACKGROUND + 1).to(self.device)
        if self.stage.name == "projector":
            scenes = [draw_scene(self._rng(steps, row)) for row in range(256)]
            with torch.no_grad():
                seen = see(model, pixels(scenes).to(self.device))
            plant_visual_sinks(model, seen, (patch_targets(scenes) == BACKGROUND).to(self.device))
        trainable = [*parts[self.stage.name], *(head.parameters() if head else ())]
        if self.workers > 1:
            for weight in trainable:
                dist.broadcast(weight.data, 0)
        model.requires_grad_(False)
        for weight in trainable:
            weight.requires_grad_(True)
        optimizer = torch.optim.AdamW(trainable, lr=self.stage.rate, betas=(0.9, 0.98), weight_decay=0.02)
        warm_up = min(100, max(1, steps // 10))
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: _rate(step, steps, warm_up, self.stage.floor)
        )
        loss_of: Callable[[int], Loss] = {
            "vision": lambda step: self._vision(model, head, step),
            "language": lambda step: self._words(model, [text_lesson(rng) for rng in self._rngs(step)], 1.0),
            "projector": lambda step: self._projector(model, [draw_scene(rng) for rng in self._rngs(step)]),
            "together": lambda step: self._words(
                model, [image_lesson(rng) for rng in self._rngs(step)], _ANSWER_WEIGHT
            ),
        }[self.stage.name]
        rows: list[dict[str, float]] = []
        recent: list[dict[str, float]] = []
        begin = time.monotonic()
        for step in range(steps):
            loss, values = loss_of(step)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self._share(trainable)
            guard_sink_dimension(model)
            nn.utils.clip_grad_norm_(trainable, 1.0)
            optimizer.step()
            schedule.step()
            recent.append({"loss": self.workers * float(loss.detach()), **values})
            if not math.isfinite(recent[-1]["loss"]):
                raise ValueError(
                    f"the loss of {self.stage.name} is no longer a number at step {step + 1}; try another seed"
                )
            if (step + 1) % _LOG_EVERY == 0 or step + 1 == steps:
                means = _means(recent)
                rows.append({"step": float(step + 1), **means})
                recent.clear()
                if self.rank == 0:
                    losses = "  ".join(f"{key} {value:.3f}" for key, value in means.items())
                    seconds = time.monotonic() - begin
                    sys.stderr.write(f"{self.stage.name} {step + 1}/{steps}  {losses}  ({seconds:.0f} s)\n")
        return rows

    def _rng(self, step: int, row: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, 10 + self.number, step, row])  # 10: differs from `SCENE_SPLITS`

    def _rngs(self, step: int) -> Iterator[np.random.Generator]:
        """The random generator of each row of this process."""
        return (self._rng(step, row) for row in range(self.rank, self.stage.batch, self.workers))

    def _share(self, trainable: list[Tensor]) -> None:
        """Sum the gradients of all processes."""
        if self.workers > 1:
            grads = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in trainable]
            flat = torch.cat([grad.flatten() for grad in grads])
            dist.all_reduce(flat)
            sizes = [grad.numel() for grad in grads]
            for weight, grad, summed in zip(trainable, grads, flat.split(sizes), strict=True):
                weight.grad = summed.view_as(grad)

    def _total(self, value: float) -> float:
        """The sum of a number over all processes."""
        if self.workers == 1:
            return value
        held = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(held)
        return float(held)

    def _vision(self, model: LlavaForConditionalGeneration, head: nn.Module | None, step: int) -> Loss:
        assert head is not None
        scenes = [draw_scene(rng) for rng in self._rngs(step)]
        truth = patch_targets(scenes).to(self.device)
        logits = head(see(model, pixels(scenes).to(self.device)))
        loss = F.cross_entropy(logits.flatten(0, 1), truth.flatten(), reduction="sum")
        right = (logits.argmax(-1) == truth)[truth != BACKGROUND].float().mean()
        return loss / (self.stage.batch * truth.shape[1]), {"object_accuracy": float(right)}

    def _projector(self, model: LlavaForConditionalGeneration, scenes: list[Scene]) -> Loss:
        with torch.no_grad():
            seen = see(model, pixels(scenes).to(self.device))
        tokens = project(model, seen)
        return self._alignment(model, tokens, scenes, self.stage.batch)

    def _words(self, model: LlavaForConditionalGeneration, lessons: list[Lesson], answer_weight: float) -> Loss:
        """Next-token loss on the answers, plus the alignment loss of image tokens."""
        ids, weights = (part.to(self.device) for part in pad(lessons, answer_weight))
        embedded = model.get_input_embeddings()(ids)
        scenes = [lesson.scene for lesson in lessons if lesson.scene is not None]
        images = int(self._total(float(len(scenes))))
        extra: Tensor = torch.zeros((), device=self.device)
        values: dict[str, float] = {}
        if scenes:
            with torch.no_grad():
                seen = see(model, pixels(scenes).to(self.device))
            tokens = project(model, seen)
            embedded = embedded.masked_scatter((ids == WORDS["<image>"]).unsqueeze(-1), tokens)
            extra, values = self._alignment(model, tokens, scenes, images)
        hidden = model.model.language_model(inputs_embeds=embedded, use_cache=False).last_hidden_state[:, :-1]
        wanted, weights = ids[:, 1:], weights[:, 1:]
        counted = weights > 0
        logits, wanted, weights = model.lm_head(hidden[counted]), wanted[counted], weights[counted]
        summed = (F.cross_entropy(logits, wanted, reduction="none") * weights).sum()
        answers = torch.isin(wanted, torch.tensor(sorted(ANSWERS), device=self.device))
        right = (logits.argmax(-1) == wanted).float()
        found = float(right[answers].mean()) if answers.any() else math.nan
        loss = summed / self._total(float(weights.sum())) + _ALIGNMENT_WEIGHT * extra
        return loss, {"token_accuracy": float(right[~answers].mean()), "answer_accuracy": found, **values}

    def _alignment(
        self,
        model: LlavaForConditionalGeneration,
        tokens: Float[Tensor, "images patches dim"],
        scenes: list[Scene],
        images: int,
    ) -> Loss:
        """Alignment of image tokens with the embeddings of their objects, and of background with the sink dimension."""
        truth = patch_targets(scenes).to(self.device)
        first_words = torch.tensor([WORDS[name.split()[0]] for name in CLASSES], device=self.device)
        apart = torch.arange(WIDTH, device=self.device) != SINK_DIMENSION
        embeddings: Any = model.get_input_embeddings()
        words = embeddings.weight[first_words][:, apart].detach()
        near = F.normalize(tokens[..., apart], dim=-1) @ F.normalize(words, dim=-1).T  # images patches classes
        logits = (12 * near - 6).logsumexp(dim=1) - math.log(4)  # a thing has four patches
        there = _present(truth)
        loss = F.binary_cross_entropy_with_logits(logits, there, reduction="sum") / (images * len(CLASSES))
        error = tokens[..., SINK_DIMENSION] / SINK_VALUE - (truth == BACKGROUND).float()
        sinks = error.square().sum() / (images * truth.shape[1])
        right = (logits.detach() > 0) == (there > 0)
        values = {"aligned": float(right.float().mean()), "sink_error": float(error.detach().square().mean().sqrt())}
        return loss + _SINK_WEIGHT * sinks, values


def _parts(model: LlavaForConditionalGeneration) -> dict[str, list[nn.Parameter]]:
    """The trainable parameters of each stage."""
    language = list(model.model.language_model.parameters())
    projector = list(model.model.multi_modal_projector.parameters())
    return {
        "vision": list(model.model.vision_tower.parameters()),
        "language": language,
        "projector": projector,
        "together": [*language, *projector],
    }


def _present(truth: Int[Tensor, "images patches"]) -> Float[Tensor, "images classes"]:
    """One for each class in an image."""
    return F.one_hot(truth, BACKGROUND + 1).amax(dim=1)[:, :BACKGROUND].float()


def _means(rows: list[dict[str, float]]) -> dict[str, float]:
    """Mean of each value over the steps that have it."""
    values = {key: [row[key] for row in rows if math.isfinite(row.get(key, math.nan))] for row in rows for key in row}
    return {key: sum(held) / len(held) if held else math.nan for key, held in values.items()}


def _rate(step: int, steps: int, warm_up: int, floor: float) -> float:
    """The learning rate as a fraction of its maximum."""
    if step < warm_up:
        return (step + 1) / warm_up
    return floor + (1 - floor) * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up))) / 2
