"""Heads as their papers write them: one bag, step by step, with every intermediate result formed.

Each file has one function `NAME(weights, bag, ...)`, where `weights` are the named parameters and buffers of the fast
head, so one set of weights runs in both. They are written to be read, and the tests compare the fast heads with them:
logits, attention, losses and gradients. Dropout is omitted; what a head draws at random is an argument.
"""

#: Name of a head, as in `regard.heads.HEADS` -> file and function in this folder. A head that is absent needs no twin:
#: `mean` and `max` are two lines, and the variants of CLAM differ in their weights only.
PLAIN: dict[str, str] = {
    "abmil": "abmil:abmil",
    "abmil_mha": "abmil_mha:abmil_mha",
    "clam_sb": "clam:clam",
    "clam_mb": "clam:clam",
    "dsmil": "dsmil:dsmil",
    "transmil": "transmil:transmil",
    "dtfd": "dtfd:dtfd",
    "ilra": "ilra:ilra",
    "ibmil": "ibmil:ibmil",
    "acmil": "acmil:acmil",
    "acmil_mha": "acmil_mha:acmil_mha",
    "mhim": "mhim:mhim",
    "ins": "ins:ins",
}
