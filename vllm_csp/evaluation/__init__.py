"""How right the masks are: LISA's metrics, and policies compared on the engine."""
