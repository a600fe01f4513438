"""Self-supervised methods: one file each, one line each in the table."""

from fieldmark.methods.house import House
from fieldmark.methods.lcr import LCR
from fieldmark.methods.lodisc import LoDisc
from fieldmark.methods.method import BASES, Method
from fieldmark.methods.mocov2 import MoCoV2
from fieldmark.methods.mocov3 import MoCoV3
from fieldmark.methods.msam import MSAM
from fieldmark.methods.ppssl import PPSSL
from fieldmark.methods.simclr import SimCLR

BASES.update({"mocov2": MoCoV2, "mocov3": MoCoV3, "simclr": SimCLR})

METHODS: dict[str, type[Method]] = {
    "house": House,
    **BASES,
    "lcr": LCR,
    "lodisc": LoDisc,
    "msam": MSAM,
    "ppssl": PPSSL,
}
