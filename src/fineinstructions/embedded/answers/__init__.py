"""What has been learned about answers: which sentences answer a question, and whether a text answers it at all."""
