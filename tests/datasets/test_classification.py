from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image

from regard.datasets import ClassificationData, UnreadableImageError

TINY: dict[str, Any] = {"image_size": 8, "channels": 1, "workers": 0}


def digits(**options: Any) -> ClassificationData:
    data = ClassificationData("digits", **{**TINY, "batch_size": 400, **options})
    data.setup()
    return data


def on(data: ClassificationData, rank: int = 0, world_size: int = 1, accumulate: int = 1) -> ClassificationData:
    data.trainer = SimpleNamespace(
        world_size=world_size, global_rank=rank, accumulate_grad_batches=accumulate, num_devices=1
    )
    return data


def put(folder: Path, count: int = 6, broken: tuple[str, ...] = ()) -> Path:
    for split in ("train", "val"):
        for label in ("cat", "dog"):
            (folder / split / label).mkdir(parents=True)
            for index in range(count):
                Image.new("L", (9, 9), 20 * index).save(folder / split / label / f"{index}.png")
    for name in broken:
        (folder / name).write_bytes(b"broken")
    return folder


def test_training_gives_whole_batches_of_normalised_images() -> None:
    batches = list(digits().train_dataloader())
    assert [images.shape for images, _ in batches] == [(400, 1, 8, 8)] * 3
    assert batches[0][0].dtype == torch.float32
    assert batches[0][1].dtype == torch.int64


@pytest.mark.parametrize(("split", "count"), [("val", 180), ("test", 360)])
def test_evaluation_gives_every_image_in_order(split: str, count: int) -> None:
    data = digits(eval_batch_size=50)
    loader = getattr(data, f"{split}_dataloader")()
    targets = torch.cat([targets for _, targets in loader])
    assert targets.tolist() == data.splits[split].targets.tolist()
    assert len(targets) == count


def test_the_batch_size_counts_all_devices_and_accumulated_batches() -> None:
    loader = on(digits(), world_size=2, accumulate=4).train_dataloader()
    assert len(next(iter(loader))[0]) == 50
    assert len(loader) == 3 * 4


def test_a_batch_size_that_does_not_divide_is_explained() -> None:
    with pytest.raises(ValueError, match=r"is not divisible by 3 devices x 2 accumulated batches\. Try 396"):
        on(digits(), world_size=3, accumulate=2).train_dataloader()


def test_processes_train_on_the_global_batches_of_one() -> None:
    whole = next(iter(digits().train_dataloader()))[0]
    parts = [next(iter(on(digits(), rank, 2).train_dataloader()))[0] for rank in (0, 1)]
    torch.testing.assert_close(torch.stack(parts, dim=1).flatten(0, 1), whole, rtol=0, atol=0)


def test_processes_validate_on_every_image_once() -> None:
    loaders = [on(digits(eval_batch_size=20), rank, 7).val_dataloader() for rank in range(7)]
    assert sum(len(targets) for loader in loaders for _, targets in loader) == 180


def quiet(test: Any) -> Any:
    """Lightning warns of few workers and of checkpoints within an epoch, and uses what torch has deprecated."""
    warnings = ("ignore::UserWarning", "ignore:.*LeafSpec.*:FutureWarning")
    return pytest.mark.filterwarnings(*warnings)(test)


class Recorder(LightningModule):
    """Remembers what it is trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[tuple[int, float]] = []

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        self.seen.append((self.current_epoch, float(batch[0].double().sum())))
        return batch[0].mean() * self.weight

    def validation_step(self, batch: Any, _: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve training images, 3 x 4, as MNIST files."""
    folder = tmp_path_factory.mktemp("few")
    for stem, count in (("train", 14), ("t10k", 2)):
        head = bytes([0, 0, 8, 3, 0, 0, 0, count, 0, 0, 0, 8, 0, 0, 0, 8])
        pixels = np.random.default_rng(0).integers(0, 256, count * 64, dtype=np.uint8)
        (folder / f"{stem}-images-idx3-ubyte").write_bytes(head + pixels.tobytes())
        labels = bytes([0, 1] * (count // 2))
        (folder / f"{stem}-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, count]) + labels)
    return folder


def fit(few: Path, folder: Path, workers: int, epochs: int, start: Path | None = None, **trainer: Any) -> Recorder:
    model = Recorder()
    data = ClassificationData(few, **{**TINY, "batch_size": 4, "val_fraction": 0.15, "workers": workers})
    saving = ModelCheckpoint(folder, filename="{epoch}-{step}", save_top_k=-1, **trainer.pop("saving", {}))
    Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        callbacks=[saving],
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        **trainer,
    ).fit(model, data, ckpt_path=start, weights_only=False)
    return model


@quiet
@pytest.mark.parametrize("workers", [0, 2])
def test_a_restarted_fit_sees_the_same_images(few: Path, tmp_path: Path, workers: int) -> None:
    whole = fit(few, tmp_path, workers, 4)
    assert len(set(whole.seen)) == 12
    resumed = fit(few, tmp_path / "again", workers, 4, tmp_path / "epoch=1-step=6.ckpt")
    assert resumed.seen == whole.seen[6:]


@quiet
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("step", [1, 2, 3, 4, 6])
def test_a_fit_restarted_within_an_epoch_sees_the_other_images(
    few: Path, tmp_path: Path, workers: int, step: int
) -> None:
    whole = fit(few, tmp_path, workers, 3, saving={"every_n_train_steps": 1})
    (start,) = tmp_path.glob(f"*step={step}.ckpt")
    resumed = fit(few, tmp_path / "again", workers, 3, start)
    assert resumed.seen == whole.seen[step:]


@quiet
def test_a_fit_with_reloaded_loaders_sees_the_same_images(few: Path, tmp_path: Path) -> None:
    reloaded = fit(few, tmp_path, 0, 3, reload_dataloaders_every_n_epochs=1)
    assert reloaded.seen == fit(few, tmp_path / "again", 0, 3).seen


@quiet
def test_lightning_can_overfit_a_few_batches(few: Path, tmp_path: Path) -> None:
    assert len(fit(few, tmp_path, 0, 1, overfit_batches=2).seen) == 2


def test_the_first_unreadable_image_is_raised_with_its_path(tmp_path: Path) -> None:
    data = ClassificationData(put(tmp_path, broken=("train/cat/3.png",)), batch_size=12, **{**TINY, "workers": 1})
    data.setup("fit")
    with pytest.raises(UnreadableImageError, match=r"train.cat.3\.png: it is not an image"):
        list(data.train_dataloader())


def test_unreadable_images_are_left_out_and_listed(tmp_path: Path) -> None:
    put(tmp_path, broken=("train/cat/3.png", "val/dog/1.png"))
    data = ClassificationData(tmp_path, batch_size=4, skip_unreadable=True, **TINY)
    data.setup("fit")
    assert (len(data.splits["train"]), len(data.splits["val"])) == (11, 11)
    assert [(split, Path(path).name) for split, path, _ in data.unreadable] == [
        ("train", "3.png"),
        ("val", "1.png"),
    ]
    assert np.bincount(data.splits["train"].targets).tolist() == [5, 6]
    assert data.test_is_val
    data.setup("test")
    assert len(data.unreadable) == 2


def test_only_the_images_of_the_stage_are_tried(tmp_path: Path) -> None:
    data = ClassificationData(put(tmp_path, broken=("train/cat/3.png",)), skip_unreadable=True, **TINY)
    data.setup("validate")
    assert data.unreadable == []


def test_a_split_without_a_readable_image_is_explained(tmp_path: Path) -> None:
    put(tmp_path, count=1, broken=("val/cat/0.png", "val/dog/0.png"))
    data = ClassificationData(tmp_path, skip_unreadable=True, **TINY)
    with pytest.raises(ValueError, match=r"none of the 2 images of .*val can be read"):
        data.setup("validate")


def test_several_labels_come_as_floats(tmp_path: Path) -> None:
    for index in range(8):
        Image.new("L", (8, 8)).save(tmp_path / f"{index}.png")
    rows = "".join(f"{index}.png,{'a|b' if index % 2 else 'a'}\n" for index in range(8))
    (tmp_path / "labels.csv").write_text("path,label\n" + rows)
    data = ClassificationData(tmp_path, batch_size=2, **TINY)
    data.setup()
    targets = next(iter(data.train_dataloader()))[1]
    assert data.multi_label
    assert (targets.shape, targets.dtype) == ((2, 2), torch.float32)


def test_grey_digits_can_be_had_in_colour() -> None:
    assert next(iter(digits(channels=3, image_size=16).val_dataloader()))[0].shape[1:] == (3, 16, 16)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"eval_batch_size": 0}, "eval_batch_size is 0"),
        ({"workers": -1}, "workers is -1"),
        ({"seed": -1}, "seed is -1"),
        ({"mean": [0.1, 0.2]}, "mean has 2 values for 1 channels"),
        ({"augmentation": {"hflp": 0.5}}, "augmentation has no option 'hflp'; did you mean 'hflip'"),
        ({"augmentation": {"size": 8}}, "augmentation has no option 'size'"),
        ({"preprocessing": {"crop": 1}}, "preprocessing has no option 'crop'"),
        ({"augmentation": {"albumentations": ["Bluur"]}}, "did you mean 'Blur'"),
    ],
)
def test_a_bad_setting_is_explained(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        ClassificationData("digits", **{**TINY, **options})


def test_a_loader_before_setup_is_explained() -> None:
    with pytest.raises(ValueError, match=r"call setup\(\) first"):
        ClassificationData("digits", **TINY).train_dataloader()


def test_preparing_downloads_only_if_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(
        "regard.datasets.classification.open_images", lambda *_, download=False, **__: asked.append(download)
    )
    ClassificationData("digits", **TINY).prepare_data()
    ClassificationData("digits", download=True, **TINY).prepare_data()
    assert asked == [True]
