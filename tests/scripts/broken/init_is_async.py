async def init():
    pass


def run(data):
    return {"length": len(data)}
