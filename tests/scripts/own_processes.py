"""Gives its own functions and objects to processes, by the start method that the body names, and to
pickle."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import multiprocessing
import pickle


@dataclasses.dataclass
class Row:
    """Python looks at the module for what its annotations mean."""

    value: int

    def double(self) -> Row:
        return Row(self.value * 2)


def double(row: Row) -> Row:
    return row.double()


def put(queue, row):
    queue.put(row.double())


def init():
    pass


def run(data):
    if data == "pickle":
        return pickle.loads(pickle.dumps(Row(3))) == Row(3)
    context = multiprocessing.get_context(data)
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as executor:
        found = [executor.submit(double, Row(21)).result().value]
    queue = context.SimpleQueue()
    process = context.Process(target=put, args=(queue, Row(4)))
    process.start()
    found.append(queue.get().value)
    process.join()
    return found + [process.exitcode]
