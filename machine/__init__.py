"""What there is of the machine for this process: cores, memory, threads, and what runs models.

It is the same for training and service, and needs the standard library alone; OpenVINO is imported where somebody asks
for its core.
"""

from machine.allocator import give_large_blocks_back, keep_freed_memory
from machine.limits import free_memory, own_memory, usable_cores, usable_memory
from machine.missing import how_to_install
from machine.openvino_core import import_openvino, openvino_core
from machine.priority import stand_back, thread_stands_back
from machine.threads import check_room_for_thread, lasting_thread, start_thread

__all__ = [
    "check_room_for_thread",
    "free_memory",
    "give_large_blocks_back",
    "how_to_install",
    "import_openvino",
    "keep_freed_memory",
    "lasting_thread",
    "openvino_core",
    "own_memory",
    "stand_back",
    "start_thread",
    "thread_stands_back",
    "usable_cores",
    "usable_memory",
]
