"""Where workers run, and the channel to them."""
