"""4. Documents and judged pairs to training text: rows, budgets, arms, files."""
