"""Waits for the file "go", then writes its input as a line into the file "notes" and answers with it."""

import os
import time


def init():
    global notes
    notes = os.open("notes", os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def run(data):
    while not os.path.exists("go"):
        time.sleep(0.005)
    os.write(notes, f"{data}\n".encode())
    return data
