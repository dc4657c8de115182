"""The blocks as their papers write them: NCHW, step by step, without optimisations.

They have the state_dict keys of the fast blocks, so one set of weights runs in both. The tests and the
benchmark compare the fast blocks with them. Unlike the fast blocks they take and give (batch, dim,
height, width): a plain network hands them contiguous NCHW tensors, so no conversion is charged to them.
"""

#: Name of a block, as in `regard.vision.attention.ATTENTION` -> file and class in this folder.
PLAIN: dict[str, str] = {
    "softmax": "softmax:PlainSoftmaxAttention",
    "van": "van:PlainVanAttention",
    "ela": "ela:PlainEfficientLocalAttention",
    "vig": "vig:PlainVigAttention",
    "biformer": "biformer:PlainBiLevelRoutingAttention",
    "halonet": "halonet:PlainHaloAttention",
    "sparsifiner": "sparsifiner:PlainSparsifinerAttention",
    "hat": "hat:PlainHybridAttention",
    "hat_overlap": "hat_overlap:PlainOverlappingCrossAttention",
}
