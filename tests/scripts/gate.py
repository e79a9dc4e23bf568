"""Makes the file "started", waits for the file "go", writes its input as a line into "notes", and answers it."""

import os
import time


def init():
    global notes
    notes = os.open("notes", os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def run(data):
    open("started", "w").close()
    while not os.path.exists("go"):
        time.sleep(0.005)
    os.write(notes, f"{data}\n".encode())
    return data
