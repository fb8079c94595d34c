"""A kernel filter for a child process: whoever calls ``connect`` in it is killed with SIGSYS."""

import ctypes
import platform
import struct
import sys

_CONNECT = {"x86_64": 42, "aarch64": 203}.get(platform.machine())  # the number of the system call
SUPPORTED = sys.platform == "linux" and _CONNECT is not None

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_LOAD_WORD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06  # opcodes of classic BPF
_KILL_PROCESS, _ALLOW = 0x80000000, 0x7FFF0000


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def kill_on_connect() -> None:
    """Install the filter in this process and all that it starts; to be called between fork and exec.

    Raises:
        OSError: the kernel refuses.
    """
    instructions = [
        (_LOAD_WORD, 0, 0, 0),  # the system call's number, first in struct seccomp_data
        (_JUMP_IF_EQUAL, 0, 1, _CONNECT),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_RETURN, 0, 0, _ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *instruction) for instruction in instructions))
    program = _Program(len(instructions), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in (
        (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0),
    ):
        if libc.prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), "prctl failed")
