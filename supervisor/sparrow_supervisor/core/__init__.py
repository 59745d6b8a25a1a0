"""The pure core: inputs in, effects out. It imports nothing that touches the world; "now" comes with each input."""
