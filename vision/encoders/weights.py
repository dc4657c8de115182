"""Find the weights of an encoder: in a local file or folder, or on the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError
from torch import Tensor

from ..checkpoints import read_weights
from .table import EncoderRow

__all__ = ["find_weights"]


def find_weights(name: str, row: EncoderRow, weights: str | Path | None) -> tuple[Mapping[str, Tensor], str]:
    """The weights of a row and their name in messages.

    Args:
        name: of the row.
        row: of the table.
        weights: a file, or a folder that holds one by the name that it has on the hub; None fetches it from there.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a weights file, or the hub does not give it.
    """
    if weights is None:
        file = _fetch(name, row)
    else:
        file = Path(weights).expanduser()
        if file.is_dir():
            inside = next((file / one for one in row.files if (file / one).is_file()), None)
            if inside is None:
                raise FileNotFoundError(f"{file} holds none of {', '.join(row.files)}, the weights of {name}")
            file = inside
    return read_weights(file), str(file)


def _fetch(name: str, row: EncoderRow) -> Path:
    if not row.source:
        raise ValueError(f"the weights of {name} are not on the hub; give {row.needs}. Their licence: {row.licence}")
    for file in row.files:
        try:
            return Path(hf_hub_download(row.source, file))
        except LocalEntryNotFoundError as error:
            raise ValueError(
                _refusal(name, row, "the hub cannot be reached and the cache does not have them")
            ) from error
        except EntryNotFoundError:
            continue
        except GatedRepoError as error:
            raise ValueError(_refusal(name, row, "their licence must be accepted on the hub")) from error
        except (HfHubHTTPError, OSError) as error:
            raise ValueError(_refusal(name, row, " ".join(str(error).split())[:200])) from error
    raise ValueError(_refusal(name, row, f"{row.source} has none of {', '.join(row.files)}"))


def _refusal(name: str, row: EncoderRow, reason: str) -> str:
    """Why the weights of a row are not there, and what to do."""
    page = f"https://huggingface.co/{row.source}"
    accept = (
        f"accept the licence ({row.licence}) at {page}, then `hf auth login` or set HF_TOKEN; " if row.gated else ""
    )
    return (
        f"cannot get the weights of {name} ({row.source}): {reason}. To use it, {accept}"
        f"or fetch {' or '.join(row.files)} from {page} on any machine and give weights=FILE"
    )
