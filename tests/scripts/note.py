"""Writes every input as a line into the file "notes" and answers with it."""

import os


def init():
    global notes
    notes = os.open("notes", os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def run(data):
    os.write(notes, f"{data}\n".encode())
    return data
