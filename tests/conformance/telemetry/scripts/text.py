"""Does what the body says."""

import logging
import threading

from azureml_inference_server_http.api.aml_response import AMLResponse

print("imported")
trace = logging.getLogger("azmlinfsrv.trace")


def init():
    print("initialised")


def fail():
    raise ValueError("the text")


def fail_for_a_reason():
    try:
        fail()
    except ValueError as exc:
        raise RuntimeError("the consequence") from exc


def prints(data):
    if data == "print":
        print("printed", 1, None)
    elif data == "print-empty":
        print()
    elif data == "print-many":
        for number in range(5):
            print("many", number)
    elif data == "print-long":
        print("long" * 10000)
    elif data == "print-lines":
        print("two\nlines", "end", sep="|", end="")
    elif data == "print-thread":
        thread = threading.Thread(target=print, args=("in a thread",))
        thread.start()
        thread.join()


def logs(data):
    if data.startswith("level "):
        trace.log(int(data[6:]), "at level %s", data[6:])
    elif data == "child":
        logging.getLogger("azmlinfsrv.print.child").warning("of a child")
    elif data == "elsewhere":
        logging.getLogger("elsewhere").error("of another logger")
        logging.getLogger("azmlinfsrv").error("of the server's logger")
    elif data == "extra":
        trace.info("with extra", extra={"b": "text", "a": 1})
    elif data == "extra-kinds":
        kinds = {"list": [1, 2], "tuple": (1, 2), "dict": {"a": [1]}, "none": None, "yes": True, "float": 0.5}
        trace.info("with kinds", extra=kinds)
    elif data == "extra-long":
        trace.info("with long extra", extra={"k" * 151: "x", "k" * 150: "v" * 9000})
    elif data == "log-dict":
        trace.info({"a": [1, None]})
    elif data == "log-list":
        trace.info([1, "é"])
    elif data == "log-number":
        trace.info(5)
    elif data == "log-arguments":
        trace.warning("%s of %d", "one", 2)
    elif data == "event":
        trace.info("hidden", extra={"microsoft.custom_event.name": "bought", "price": 3})


def run(data):
    prints(data)
    logs(data)
    if data == "caught":
        try:
            fail()
        except ValueError:
            trace.exception("caught it", extra={"stage": "scoring"})
    elif data == "caught-chain":
        try:
            fail_for_a_reason()
        except RuntimeError:
            trace.warning("caught both", exc_info=True)
    elif data == "raise":
        fail()
    elif data == "raise-chain":
        fail_for_a_reason()
    elif data == "raise-no-text":
        raise KeyError
    elif data == "long-reply":
        return "r" * 9000
    elif data == "none":
        return None
    elif data == "number":
        return 1.5
    elif data == "dict":
        return {"a": [1, "é"]}
    elif data == "teapot":
        return AMLResponse("short and stout", 418)
    elif data == "status-500":
        return AMLResponse("broken", 500)
    elif data == "status-404":
        return AMLResponse({"no": "such"}, 404, json_str=True)
    elif data == "binary":
        return AMLResponse(b"\xff\xfe", 200)
    elif data == "stream":
        return AMLResponse((part for part in ("first,", "second")), 200)
    elif data == "not-json":
        return object()
    return data
