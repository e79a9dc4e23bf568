"""Tells what a script can see of its process."""

import asyncio
import os
import sys
import threading
import time

beats = 0


def init():
    global init_pid, init_thread
    init_pid, init_thread = os.getpid(), threading.current_thread()
    threading.Thread(target=beat, daemon=True).start()


def beat():
    global beats
    while True:
        beats += 1
        time.sleep(0.001)


def is_loop_running():
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def run(data):
    if data == "beats":
        return beats
    if data == "loop":
        return asyncio.new_event_loop().run_until_complete(asyncio.sleep(0, "ran"))
    return {
        "name": __name__,
        "file": __file__,
        "in sys.modules": __name__ in sys.modules,
        "main thread": threading.current_thread() is threading.main_thread() is init_thread,
        "process of init": os.getpid() == init_pid,
        "loop is running": is_loop_running(),
        "flask is imported": "flask" in sys.modules,
        "folder": os.getcwd(),
        "port": os.environ["SERVER_PORT"],
    }
