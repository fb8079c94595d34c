"""What there is of the machine for this process: cores, memory, and what runs models.

It is the same for training and service, and needs the standard library alone; OpenVINO is imported where somebody asks
for its core.
"""

from machine.allocator import give_large_blocks_back, keep_freed_memory
from machine.limits import free_memory, own_memory, usable_cores, usable_memory
from machine.openvino_core import import_openvino, openvino_core
from machine.priority import stand_back

__all__ = [
    "free_memory",
    "give_large_blocks_back",
    "import_openvino",
    "keep_freed_memory",
    "openvino_core",
    "own_memory",
    "stand_back",
    "usable_cores",
    "usable_memory",
]
