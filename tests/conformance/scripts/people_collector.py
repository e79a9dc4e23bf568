"""A queue emptied by a daemon thread of init(), a package beside the script, a file found by
__file__, atexit."""

import json
import os
import queue
import threading

from handlers.text import handle


def work():
    while True:
        item, done = jobs.get()
        collected.append(item)
        done.set()


def init():
    global jobs, collected, labels
    jobs, collected = queue.Queue(), []
    with open(os.path.join(os.path.dirname(os.path.realpath(__file__)), "labels.txt")) as f:
        labels = f.read().split()
    threading.Thread(target=work, daemon=True).start()


def run(raw_data):
    data = json.loads(raw_data)
    label = labels[data["label"]]
    done = threading.Event()
    jobs.put((data["text"], done))
    done.wait(5)
    return {"text": handle(data["text"]), "label": label, "collected": len(collected)}
