"""Python imports it at its start under Wine: makes up for what Wine 8 lacks. Nothing of it is needed on Windows.

``os.kill(pid, signal.CTRL_BREAK_EVENT)``: Wine does not send this event. So this starts the thread in the other process
that Windows would start there. And Wine keeps every event from a process that has a group of its own, where Windows
keeps Ctrl-C: so this asks for all of them.
"""

import ctypes
import os
import signal

_kill = os.kill
_ALL_ACCESS = 0x1FFFFF


def kill(pid, number):
    if number is not signal.CTRL_BREAK_EVENT:
        return _kill(pid, number)
    kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    kernel.OpenProcess.restype = kernel.GetModuleHandleW.restype = kernel.GetProcAddress.restype = ctypes.c_void_p
    kernel.CreateRemoteThread.restype = ctypes.c_void_p
    kernel.GetProcAddress.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    kernel.CreateRemoteThread.argtypes = [ctypes.c_void_p] * 5 + [ctypes.c_ulong, ctypes.c_void_p]
    routine = kernel.GetProcAddress(kernel.GetModuleHandleW("kernelbase.dll"), b"CtrlRoutine")
    process = kernel.OpenProcess(_ALL_ACCESS, False, pid)
    if not kernel.CreateRemoteThread(process, None, 0, routine, int(number), 0, None):
        raise ctypes.WinError(ctypes.get_last_error())


os.kill = kill
ctypes.WinDLL("kernel32").SetConsoleCtrlHandler(None, False)
