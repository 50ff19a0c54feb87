"""Weights of the models that come with the library, each NAME.safetensors with its record NAME.json."""
