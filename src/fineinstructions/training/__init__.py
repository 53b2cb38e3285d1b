"""Room 6: a corpus to a model. Packs tokens, describes models, and trains them."""
