from .bag import Bag as Bag
from .bag import Bags as Bags
from .bag import Fold as Fold
from .data_module import BagData as BagData
from .dataset import BagBatch as BagBatch
from .dataset import BagDataset as BagDataset
from .dataset import collate_bags as collate_bags
from .fold_files import read_folds as read_folds
from .fold_files import write_folds as write_folds
from .folds import make_folds as make_folds
from .sources import BAG_SETS as BAG_SETS
from .sources import open_bags as open_bags

__all__ = [
    "BAG_SETS",
    "Bag",
    "BagBatch",
    "BagData",
    "BagDataset",
    "Bags",
    "Fold",
    "collate_bags",
    "make_folds",
    "open_bags",
    "read_folds",
    "write_folds",
]
