"""A folder of features as CLAM writes them, so small that heads learn it in a second."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

DIM = 6


def write_slides(folder: Path, *, slides: int = 24, survival: bool = False, dtype: type = np.float32) -> list[str]:
    """Write h5_files/ and slides.csv; every second slide is a tumour, visible in it. Two slides a patient."""
    rng = np.random.default_rng(0)
    (folder / "h5_files").mkdir(parents=True)
    lines = ["case_id,slide_id,time,event" if survival else "case_id,slide_id,label"]
    for number in range(slides):
        tumour = number // 2 % 2
        features = rng.standard_normal((int(rng.integers(3, 8)), DIM)) + 2.0 * tumour
        with h5py.File(folder / f"h5_files/slide_{number}.h5", "w") as file:
            file["features"] = features.astype(dtype)
            file["coords"] = np.zeros((len(features), 2), np.int64)
        time = (2.0 if tumour else 8.0) + float(rng.random())
        target = f"{time:.3f},{int(number % 6 != 0)}" if survival else ("tumour" if tumour else "normal")
        lines.append(f"patient_{number // 2},slide_{number},{target}")
    (folder / "slides.csv").write_text("\n".join(lines) + "\n")
    return ["--data", str(folder), "--table", str(folder / "slides.csv")]
