"""The same for FastAPI on uvicorn. ``run()`` is called on the event loop: one request at a time in
each process."""

import scoring
from fastapi import FastAPI, Request, Response

app = FastAPI()
script = scoring.load()


@app.get("/")
async def health():
    return "Healthy"


@app.post("/score")
async def score(request: Request):
    return Response(scoring.answer(script, await request.body()), media_type="application/json")
