"""How each dialect's request and reply look. Imports nothing of ours but errors, values and the generated messages."""
