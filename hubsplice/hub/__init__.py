"""Publishing a spliced checkpoint on the Hugging Face Hub."""
