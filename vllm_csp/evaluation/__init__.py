"""How right the masks are: data sets, LISA's metrics, and policies compared on the engine."""
