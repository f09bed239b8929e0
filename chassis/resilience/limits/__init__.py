"""How much each tenant may ask for: a bucket of tokens per tenant and API version, shared by all processes."""
