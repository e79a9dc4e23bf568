"""The smallest application that serves a scoring script on granian's own protocol.

Calls ``run()`` on the event loop: one request at a time in each worker process, as in the servers
it is compared with.
"""

import scoring

JSON = [("content-type", "application/json")]


class Application:
    """The application that runs in each worker process."""

    def __rsgi_init__(self, loop):
        self.script = scoring.load()

    async def __rsgi__(self, scope, protocol):
        if scope.path != "/score":
            protocol.response_str(200, [], "Healthy")
            return
        body = await protocol()
        protocol.response_str(200, JSON, scoring.answer(self.script, body))


app = Application()
