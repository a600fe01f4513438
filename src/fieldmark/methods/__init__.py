"""Self-supervised methods: one file each, one line each in the table."""

from fieldmark.methods.house import House
from fieldmark.methods.method import Method
from fieldmark.methods.mocov2 import MoCoV2
from fieldmark.methods.mocov3 import MoCoV3
from fieldmark.methods.simclr import SimCLR

METHODS: dict[str, type[Method]] = {
    "house": House,
    "mocov2": MoCoV2,
    "mocov3": MoCoV3,
    "simclr": SimCLR,
}
