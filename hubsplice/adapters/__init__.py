"""Edits as LoRA adapters on a carrier: a base with empty layers that are made for them.

Input: what the compiler made of a recipe, and a carrier. Output: an adapter in PEFT's format, and
what it says. May import the compiler and what stands before it.
"""
