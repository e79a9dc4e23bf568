"""Cannot be imported."""

raise LookupError("no luck at import")
