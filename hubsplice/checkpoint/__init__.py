"""Reading a base checkpoint, and writing the spliced one beside its manifest."""
