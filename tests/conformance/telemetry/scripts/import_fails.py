"""Cannot be imported."""

print("before")
raise ImportError("this is missing")
