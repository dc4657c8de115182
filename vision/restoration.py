"""Image restoration as a Lightning module: loss, optimiser, schedule and measures around any restorer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor, nn
from torchmetrics import MeanMetric

from ..optimisation import ScheduledModule
from .image_quality import measure

__all__ = ["MEASURES", "ImageRestorer"]

#: What is measured; the first one leads.
MEASURES = ("psnr_y", "ssim_y", "psnr", "ssim")


class ImageRestorer(ScheduledModule):
    """Trains and measures a restorer; use it with any Lightning `Trainer` and `RestorationData`.

    Batches are pairs of lq-quality and hq-quality images in 0-1. Logged at validation and test are `psnr_y`,
    `ssim_y`, `psnr` and `ssim` (see `regard.vision.image_quality`), each as `val_...` or `test_...`, means over
    images. After a test, `rows` holds those of every image.

    Source of the defaults: Chen et al. 2023, arXiv:2205.04437, section 4.1: L1, Adam with betas 0.9 and 0.99, no decay,
    the rate halved after 50, 80, 90 and 95 % of the updates.

    Args:
        model: a network from images to images, with a whole number `scale`.
        loss: l1; or charbonnier, its smooth form sqrt(x^2 + 10^-6).
        optimizer: any optimiser of timm.
        lr: highest learning rate.
        weight_decay: decay of weights.
        momentum: the first beta.
        halve_at: shares of the updates, 0-1, after which the rate is halved; empty for `schedule`.
        schedule: any schedule of timm that needs no metric, applied at every update.
        warmup_epochs: epochs in which the rate rises linearly from `warmup_lr`.
        warmup_lr: rate of the first update.
        min_lr: rate at the end of `schedule`.
        cooldown_epochs: last epochs, at `min_lr`.
        compile: compile the model with `torch.compile`.
        grad_checkpointing: recompute activations in the backward pass.

    Raises:
        ValueError: an unknown loss, shares that are out of range or not in order, or a schedule that needs a metric.

    Example:
        >>> import torch, regard
        >>> tiny = {"dim": 12, "depths": (1,), "num_heads": 2}
        >>> restorer = ImageRestorer(regard.create_model("hat_tiny_x2", **tiny), lr=5e-4)
        >>> restorer(torch.rand(1, 3, 10, 14)).shape
        torch.Size([1, 3, 20, 28])
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        loss: Literal["l1", "charbonnier"] = "l1",
        optimizer: str = "adam",
        lr: float | int = 2e-4,
        weight_decay: float | int = 0.0,
        momentum: float | int = 0.9,
        halve_at: Sequence[float | int] = (0.5, 0.8, 0.9, 0.95),
        schedule: str = "cosine",
        warmup_epochs: int = 0,
        warmup_lr: float | int = 1e-6,
        min_lr: float | int = 1e-6,
        cooldown_epochs: int = 0,
        compile: bool = False,
        grad_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if loss not in ("l1", "charbonnier"):
            raise ValueError(f"unknown loss {loss!r}; give l1 or charbonnier")
        if list(halve_at) != sorted(halve_at) or not all(0 < share < 1 for share in halve_at):
            raise ValueError(f"halve_at {list(halve_at)} must be shares between 0 and 1 in ascending order")
        self.refuse_plateau(schedule)
        self.save_hyperparameters(ignore=["model"])
        self.model = model
        self.scale = int(getattr(model, "scale", 1))
        if grad_checkpointing:
            model.set_grad_checkpointing(True)  # type: ignore[operator]
        if compile:
            model.compile()
        names = [f"{stage}_{name}" for stage in ("val", "test") for name in MEASURES]
        self.means = nn.ModuleDict({name: MeanMetric(nan_strategy="ignore") for name in names})
        self.rows: list[dict[str, float]] = []

    @property
    def score(self) -> str:
        """Name of the logged measure that chooses the best checkpoint; larger is better."""
        return f"val_{MEASURES[0]}"

    @property
    def optimizer_options(self) -> Mapping[str, Any]:
        """The betas of the authors, for optimisers of Adam's family."""
        return {"betas": (self.hparams["momentum"], 0.99)} if "adam" in self.hparams["optimizer"] else {}

    def forward(
        self, lq: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels scaled_height scaled_width"]:
        """Restore images."""
        return self.model(lq)

    def loss(
        self,
        restored: Float[Tensor, "batch channels height width"],
        truth: Float[Tensor, "batch channels height width"],
    ) -> Float[Tensor, ""]:
        """Mean over all pixels."""
        difference = restored.float() - truth
        if self.hparams["loss"] == "charbonnier":
            return (difference.square() + 1e-6).sqrt().mean()
        return difference.abs().mean()

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        """One forward pass."""
        lq, hq = batch
        loss = self.loss(self(lq), hq)
        self.log("train_loss", loss.detach(), on_step=False, on_epoch=True, sync_dist=True, batch_size=len(lq))
        return loss

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        """Measure one batch."""
        self._measure(batch, "val")

    def on_test_epoch_start(self) -> None:
        """Begin a new table."""
        self.rows = []

    def test_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        """Measure one batch; gives what was restored to callbacks."""
        restored, found = self._measure(batch, "test")
        columns = {name: values.tolist() for name, values in found.items()}
        self.rows += [{name: columns[name][index] for name in MEASURES} for index in range(len(restored))]
        return restored

    def predict_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        """Restored images in 0-1."""
        return self(batch[0]).float().clamp(0, 1)

    def _measure(self, batch: Sequence[Tensor], stage: str) -> tuple[Tensor, dict[str, Tensor]]:
        lq, hq = batch
        restored = self(lq).float()
        found = measure(restored, hq, border=self.scale if self.scale > 1 else 0)
        for name, values in found.items():
            mean = self.means[f"{stage}_{name}"]
            assert isinstance(mean, MeanMetric)
            mean.update(values.float())
            self.log(f"{stage}_{name}", mean, on_step=False, on_epoch=True, batch_size=len(lq))
        return restored, found
