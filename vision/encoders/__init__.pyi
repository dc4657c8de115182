from .build import build_encoder as build_encoder
from .encoder import PatchEncoder as PatchEncoder
from .encoder import encoder_fingerprint as encoder_fingerprint
from .table import ENCODERS as ENCODERS
from .table import EncoderRow as EncoderRow

__all__ = ["ENCODERS", "EncoderRow", "PatchEncoder", "build_encoder", "encoder_fingerprint"]
