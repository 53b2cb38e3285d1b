"""Documents to coverage chunks, vectors, candidates and sampled matches."""
