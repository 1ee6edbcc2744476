"""All clients: the verbs, and what is shown of them."""
