"""Checkpoint or endpoint -> scores: MixEval, MT-Bench-101, AlpacaEval, over one ledger of answers and judgements."""
