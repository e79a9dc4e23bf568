"""The same for FastAPI on uvicorn. ``run()`` is called on the event loop: one request at a time in
each process, unless it is async."""

import inspect

import scoring
from fastapi import FastAPI, Request, Response

app = FastAPI()
script = scoring.load()


@app.get("/")
async def health():
    return "Healthy"


@app.post("/score")
async def score(request: Request):
    body = await request.body()
    if inspect.iscoroutinefunction(script.run):
        answer = await scoring.awaited(script, body)
    else:
        answer = scoring.answer(script, body)
    return Response(answer, media_type="application/json")
