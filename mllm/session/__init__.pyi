from .activity import Activity as Activity
from .contract import Call as Call
from .contract import Edit as Edit
from .contract import Intervention as Intervention
from .contract import Prompts as Prompts
from .contract import View as View
from .layer_selection import head_mask as head_mask
from .layer_selection import layer_indices as layer_indices
from .session import Session as Session
from .session import intervene as intervene
from .sinks import SINKS as SINKS
from .sinks import discover_sinks as discover_sinks
from .streams import Stream as Stream
from .streams import contrast as contrast
from .streams import guidance as guidance

__all__ = [
    "SINKS",
    "Activity",
    "Call",
    "Edit",
    "Intervention",
    "Prompts",
    "Session",
    "Stream",
    "View",
    "contrast",
    "discover_sinks",
    "guidance",
    "head_mask",
    "intervene",
    "layer_indices",
]
