"""Room 6: a pre-trained model and held-out texts to scores."""
