"""Sparsifiner's training: the predictors learn the dense attention, then the network learns to do with less.

Source: Wei et al. 2023, arXiv:2303.13755, section 3.4; lim142857/Sparsifiner@9a11e26, src/losses.py.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from timm.optim import create_optimizer_v2
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from .attention.mask_predictor import MaskPredictor
from .classification import ImageClassifier

__all__ = ["SparsifinerClassifier", "distillation_loss", "predictors", "reconstruction", "token_loss"]


def predictors(model: nn.Module) -> list[MaskPredictor]:
    """All predictors of a network, in order."""
    return [module for module in model.modules() if isinstance(module, MaskPredictor)]


@contextmanager
def reconstruction(model: nn.Module, mode: Literal["reconstruct", "dense"] = "reconstruct") -> Iterator[list[Tensor]]:
    """Within it the network's attention is dense, and each layer's reconstruction error is collected.

    The error is the square of the guess less the layer's own softmax attention, summed over images, heads, rows
    and columns.

    Args:
        model: a network with predictors.
        mode: `"dense"` collects nothing.

    Yields:
        The errors, one a layer, after a forward pass.

    Example:
        >>> from regard.vision.attention.sparsifiner import SparsifinerAttention
        >>> block = SparsifinerAttention(8, num_heads=2, grid=3)
        >>> with reconstruction(block) as errors:
        ...     _ = block(torch.rand(1, 3, 3, 8))
        >>> len(errors)
        1
    """
    errors: list[Tensor] = []
    before = [(predictor, predictor.mode) for predictor in predictors(model)]
    try:
        for predictor, _ in before:
            predictor.mode, predictor.losses = mode, errors
        yield errors
    finally:
        for predictor, old in before:
            predictor.mode, predictor.losses = old, None


def distillation_loss(
    logits: Float[Tensor, "batch classes"], teacher: Float[Tensor, "batch classes"]
) -> Float[Tensor, ""]:
    """Kullback-Leibler divergence of the student from the teacher, the mean over images."""
    return F.kl_div(logits.log_softmax(dim=-1), teacher.log_softmax(dim=-1), reduction="batchmean", log_target=True)


def token_loss(
    tokens: Float[Tensor, "batch patches dim"],
    teacher: Float[Tensor, "batch patches dim"],
    valid: Bool[Tensor, "batch patches"] | None = None,
) -> Float[Tensor, ""]:
    """Mean squared error of the last patch tokens, of those that were not dropped."""
    squares = (tokens - teacher).square().mean(dim=-1)
    if valid is None:
        return squares.mean()
    return (squares * valid).sum() / valid.sum().clamp(min=1)


class SparsifinerClassifier(ImageClassifier):
    """Trains a dense network with fresh predictors to attend sparsely, in two stages.

    The network must hold the dense weights when this is made; a frozen copy of it, with dense attention, is the
    teacher.

    1. For `reconstruction_epochs` only the predictors learn, to reconstruct the dense attention. The rest is as in
       the teacher, so each layer's own attention is the teacher's, and one pass is enough.
    2. Then only the rest learns: cross entropy, divergence from the teacher's logits, and the squared error of
       its last patch tokens (where every patch is classified, of those logits).

    The authors sum the error over a device's batch, so its gradient grows with the batch; AdamW does not mind.
    With several devices use the strategy `ddp_find_unused_parameters_true`, as `regard train` does: each stage leaves
    parameters out.

    Args:
        model: a network with predictors, e.g. `sparsifiner_deit_small_patch16_224`, or a ViT with the block.
        reconstruction_epochs: epochs of the first stage; those of the second are the trainer's rest.
        reconstruction_lr: highest learning rate of the first stage.
        reconstruction_min_lr: its rate at the end.
        reconstruction_warmup_epochs: its epochs in which the rate rises from `warmup_lr`.
        reconstruction_weight: of the error, divided by the number of layers.
        logit_weight: of the divergence.
        token_weight: of the tokens' error.
        lr: highest rate of the second stage.
        min_lr: its rate at the end.
        warmup_epochs: its epochs in which the rate rises from `warmup_lr`.
        classifier: the other arguments of `ImageClassifier`; the schedule is always a cosine, without cooldown.

    Raises:
        ValueError: the network has no predictors, or an argument that does not go with two stages.

    Example:
        >>> import regard
        >>> small = {"img_size": 32, "embed_dim": 24, "depth": 2, "num_classes": 10}
        >>> model = regard.create_model("sparsifiner_deit_tiny_patch16_224", **small)
        >>> classifier = SparsifinerClassifier(model, reconstruction_epochs=1)
        >>> classifier(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    leaves_parameters_unused = True

    def __init__(
        self,
        model: nn.Module,
        *,
        reconstruction_epochs: int = 5,
        reconstruction_lr: float = 3e-4,
        reconstruction_min_lr: float = 2e-4,
        reconstruction_warmup_epochs: int = 3,
        reconstruction_weight: float = 0.01,
        logit_weight: float = 0.5,
        token_weight: float = 0.5,
        lr: float = 8e-5,
        min_lr: float = 2e-6,
        warmup_epochs: int = 3,
        **classifier: Any,
    ) -> None:
        if not predictors(model):
            raise ValueError(f"{type(model).__name__} has no predictors; take a sparsifiner_* model or attention")
        if classifier.get("schedule", "cosine") != "cosine" or classifier.get("cooldown_epochs"):
            raise ValueError("Sparsifiner's two stages have a cosine each; leave schedule and cooldown_epochs out")
        teacher = copy.deepcopy(model).eval().requires_grad_(False)
        super().__init__(model, lr=lr, min_lr=min_lr, warmup_epochs=warmup_epochs, **classifier)
        self.teacher = teacher
        self.save_hyperparameters(ignore=["model", "classifier"])

    @property
    def reconstructs(self) -> bool:
        """Whether this is the first stage."""
        return self.trainer.current_epoch < self.hparams["reconstruction_epochs"]

    def on_train_epoch_start(self) -> None:
        """Freeze what does not learn in this stage."""
        self._freeze(self.reconstructs)

    def _freeze(self, backbone: bool) -> None:
        of_predictors = {id(weight) for predictor in predictors(self.model) for weight in predictor.parameters()}
        for weight in self.model.parameters():
            weight.requires_grad_((id(weight) in of_predictors) == backbone)

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        """One pass of the stage at hand."""
        images, labels = batch
        if self.mix is not None:
            if labels.ndim == 1:
                labels = F.one_hot(labels, self.num_classes).to(images.dtype)
            images, labels = self.mix(images, labels)
        terms = self._reconstruction_terms(images) if self.reconstructs else self._sparse_terms(images, labels)
        for name, term in terms.items():
            self.log(
                f"train_{name}", term.detach(), on_step=False, on_epoch=True, sync_dist=True, batch_size=len(images)
            )
        loss = torch.stack(list(terms.values())).sum()
        self.log("train_loss", loss.detach(), on_step=False, on_epoch=True, sync_dist=True, batch_size=len(images))
        return loss

    def _reconstruction_terms(self, images: Tensor) -> dict[str, Tensor]:
        self.model.eval()  # norms of batches, dropout and drop path as in the teacher
        with reconstruction(self.model) as errors:
            self(images)
        self.model.train()
        weight = self.hparams["reconstruction_weight"] / len(errors)
        return {"reconstruction": weight * torch.stack(errors).sum()}

    def _sparse_terms(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        with torch.no_grad(), reconstruction(self.teacher, "dense"):
            teacher_logits, teacher_tokens, _ = _outputs(self.teacher, images)
        logits, tokens, valid = _outputs(self.model, images)
        return {
            "classification": self.loss(logits, labels, smoothing=self.hparams["label_smoothing"]),
            "distillation": self.hparams["logit_weight"] * distillation_loss(logits, teacher_logits),
            "tokens": self.hparams["token_weight"] * token_loss(tokens, teacher_tokens, valid),
        }

    def configure_optimizers(self) -> dict[str, Any]:  # type: ignore[override]
        """One optimiser for both stages: what has no gradient is left alone. The rates are set at every update."""
        chosen = self.hparams
        self.model.requires_grad_(True)
        optimizer = create_optimizer_v2(
            self.model,
            opt=chosen["optimizer"],
            lr=1.0,
            weight_decay=chosen["weight_decay"],
            momentum=chosen["momentum"],
            layer_decay=chosen["layer_decay"],
        )
        epochs = self.trainer.max_epochs or 1
        first = chosen["reconstruction_epochs"]
        if not 0 <= first <= epochs:
            raise ValueError(f"reconstruction_epochs is {first}; 0 to {epochs}, the trainer's epochs, would do")
        updates = max(1, int(self.trainer.estimated_stepping_batches) // epochs)
        scales = [group.get("lr_scale", 1.0) for group in optimizer.param_groups]
        rates: list[Callable[[int], float]] = [
            partial(self._group_rate, scale=scale, updates=updates, epochs=epochs) for scale in scales
        ]
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": LambdaLR(optimizer, rates), "interval": "step"}}

    def rate(self, epoch: float | int, epochs: int) -> float:
        """The learning rate at a moment.

        Args:
            epoch: epochs done, and the part of one.
            epochs: of both stages.
        """
        chosen = self.hparams
        first = chosen["reconstruction_epochs"]
        if epoch < first:
            stage, prefix = first, "reconstruction_"
        else:
            epoch, stage, prefix = epoch - first, epochs - first, ""
        top, low = chosen[f"{prefix}lr"], chosen[f"{prefix}min_lr"]
        warmup, start = min(chosen[f"{prefix}warmup_epochs"], stage), chosen["warmup_lr"]
        if epoch < warmup:
            return start + (top - start) * epoch / warmup
        part = min(1.0, (epoch - warmup) / max(1e-9, stage - warmup))
        return low + (top - low) * 0.5 * (1 + math.cos(math.pi * part))

    def _group_rate(self, step: int, *, scale: float, updates: int, epochs: int) -> float:
        return scale * self.rate(step / updates, epochs)

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Set the rate by the number of updates so far."""
        scheduler.step()


def _outputs(model: Any, images: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Logits, what is compared of every patch, and which patches are left."""
    prefix = model.num_prefix_tokens
    valid = None
    if hasattr(model, "run_blocks"):
        every, valid = model.run_blocks(images)
        tokens = model.norm(every[-1])
        valid = None if valid is None else valid[:, prefix:]
    else:
        tokens = model.forward_features(images)
    patches = tokens[:, prefix:]
    if getattr(model, "aux_head", None) is not None:
        patches = model.aux_head(patches)
    return model.forward_head(tokens), patches, valid
