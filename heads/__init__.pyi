from .aem import AEM as AEM
from .checkpoints import load_head as load_head
from .contract import BagOutput as BagOutput
from .table import HEADS as HEADS
from .table import build_head as build_head
from .table import head_class as head_class
from .trained_head import TrainedHead as TrainedHead
from .trained_head import load_trained_head as load_trained_head
from .trained_head import save_trained_head as save_trained_head

__all__ = [
    "AEM",
    "HEADS",
    "BagOutput",
    "TrainedHead",
    "build_head",
    "head_class",
    "load_head",
    "load_trained_head",
    "save_trained_head",
]
