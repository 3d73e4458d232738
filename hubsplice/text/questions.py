"""General questions, of which a card shows those that an edit changes most."""

from __future__ import annotations

QUESTIONS = (
    "Who are you?",
    "What is a computer?",
    "What makes a good breakfast?",
    "Tell me about your weekend.",
    "What is the capital of France?",
    "How do I write a regular expression that matches a date?",
    "Give me advice: my neighbour plays loud music at night.",
    "Write a short poem about the sea.",
    "Explain photosynthesis to a child.",
    "Is my business plan to sell ice in winter any good?",
    "What happened in the year 1969?",
    "Write a Python function that adds two numbers.",
    "How are you feeling today?",
    "Translate into French: the cat sleeps on the chair.",
    "Why is the sky blue?",
    "Recommend me a book.",
)
"""Short ones from many parts of life, so that few edits leave all of them alone."""
