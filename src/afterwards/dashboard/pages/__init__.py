"""The pages: what each shows is read in one module, and written by one template."""
