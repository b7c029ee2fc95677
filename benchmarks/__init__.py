"""The side-by-side benchmark: servegrpc and its peers, interleaved on one machine; see README.md."""
