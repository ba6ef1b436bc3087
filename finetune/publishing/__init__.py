"""Publishing: what of a run goes to the Hugging Face Hub, what its card says, and how it gets there whole."""
