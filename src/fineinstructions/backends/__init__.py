"""Engines behind a Protocol: model servers, encoders, vector indexes."""
